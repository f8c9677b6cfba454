// The score strip under a reply: one bar a token on a scale of log-odds, the threshold as a line.

import { svg } from "./elements.js";
import { ENDS, logit, shown } from "./whatif.js";

const HEIGHT = 44;
const MOST_BARS = 400;
const MARKS = [0.01, 0.5, 0.99];
const y = (p) => HEIGHT * (1 - (logit(p) + ENDS) / (2 * ENDS));

/** A picture of scores; of many, each bar is the highest of its share. Its text says what it shows. */
export function strip(tokens, threshold, position) {
  const each = Math.ceil(tokens.length / MOST_BARS) || 1;
  const bars = [];
  for (let i = 0; i < tokens.length; i += each) bars.push(Math.max(...tokens.slice(i, i + each).map(([, score]) => score)));
  const width = Math.max(bars.length, 24);
  const highest = bars.reduce((a, b) => Math.max(a, b), 0);
  const says = `Scores of ${tokens.length} tokens, the highest ${shown(highest)}; threshold ${shown(threshold)}` +
    (position === null ? "" : `; reached at token ${position}`);
  const picture = svg("svg", { class: "strip", viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": says });
  for (const p of MARKS) picture.append(svg("line", { class: "rule", x1: 0, x2: width, y1: y(p), y2: y(p) }));
  bars.forEach((score, i) => {
    const top = Math.min(y(score), HEIGHT - 1);
    picture.append(svg("rect", { class: score >= threshold ? "bar over" : "bar", x: i + 0.1, width: 0.8, y: top, height: HEIGHT - top }));
  });
  picture.append(svg("line", { class: "threshold", x1: 0, x2: width, y1: y(threshold), y2: y(threshold) }));
  return picture;
}
