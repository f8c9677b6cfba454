// One prompt and its reply on the page: tinted tokens, what is held or withheld, verdict and action, and what another threshold would do.

import { el } from "./elements.js";
import { strip } from "./strip.js";
import { logit, outcome, shown } from "./whatif.js";

const [LOW, HIGH] = [logit(0.03), logit(0.97)];

export class Exchange {
  /** `about`: what the gateway told of its guard. */
  constructor(text, about) {
    this.about = about;
    this.prompt = { text, tokens: null, start: 0, verdict: null, action: null };
    this.reply = { text: "", thoughts: "", tokens: [], held: 0, verdict: null, action: null, finish: null, problem: null };
    this.state = "asking";
    this.would = null;
    this.said = el("p", { class: "text" }, text);
    this.asked = el("div", { class: "judged" });
    this.thoughts = el("p", { class: "thoughts", hidden: true });
    this.answer = el("p", { class: "text" });
    this.picture = el("div", { class: "picture" });
    this.judged = el("div", { class: "judged" });
    this.other = el("p", { class: "other" });
    this.list = el("table");
    this.details = el("details", { class: "list", hidden: true }, el("summary", {}, "Scores as a list"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Scores" }, this.list));
    this.details.addEventListener("toggle", () => this.details.open && this.#fillList());
    this.root = el("li", { class: "exchange" },
      el("article", { class: "you", "aria-label": "Your prompt" }, el("h3", {}, "You"), this.said, this.asked),
      el("article", { class: "reply", "aria-label": "The reply" }, el("h3", {}, "Reply"), this.thoughts, this.answer, this.picture, this.judged, this.other, this.details));
  }

  /** Whether later turns are sent with it. */
  get goesOn() {
    return this.state === "done" && !this.prompt.verdict?.flagged && !this.reply.verdict?.flagged && this.reply.text !== "";
  }

  /** Draw all of it anew, as another threshold would have it. */
  draw(thresholds) {
    const own = this.about.guard.thresholds;
    const would = own ? outcome(this, thresholds, own) : null;
    const changed = own && (thresholds.prompt !== own.prompt || thresholds.reply !== own.reply);
    const { prompt, reply } = this;
    const mark = would?.prompt === "refused" && changed ? would.at - prompt.start : null;
    this.said.replaceChildren(...tokens(prompt.text, prompt.tokens?.slice(prompt.start) ?? [], own && thresholds.prompt, mark, "refused here"));
    this.asked.replaceChildren(...judgement("prompt", prompt, this.about));
    this.thoughts.hidden = !reply.thoughts;
    this.thoughts.textContent = reply.thoughts;
    const end = changed && would.prompt === "refused" ? 0 : changed && would.reply === "halted" ? would.position : null;
    this.answer.replaceChildren(...tokens(reply.text, reply.tokens, own && thresholds.reply, end, "ended here"), ...this.#end());
    const position = own && would.reply === "halted" ? would.position : null;
    this.picture.replaceChildren(...(own && reply.tokens.length ? [strip(reply.tokens, thresholds.reply, position)] : []));
    this.judged.replaceChildren(...judgement("reply", reply, this.about));
    this.other.textContent = changed && this.state !== "asking" ? sentence(would, this) : "";
    this.details.hidden = !reply.tokens.length && !prompt.tokens;
    if (this.details.open) this.#fillList();
    this.would = would;
  }

  /** What stands after the text that left. */
  #end() {
    const { reply, prompt } = this;
    if (this.state === "asking" && !reply.text) return [el("span", { class: "soft" }, prompt.verdict ? "Waiting for the model …" : "Judging the prompt …")];
    if (prompt.action === "block") return [el("span", { class: "cut" }, "Refused: the model was not asked")];
    if (reply.action === "block" && reply.verdict?.flagged) return [" ", el("span", { class: "cut" }, "Ended here by the guard; the rest is withheld")];
    if (reply.problem) return [" ", el("span", { class: "cut" }, reply.problem)];
    if (this.state === "stopped") return [" ", el("span", { class: "held" }, "Stopped by you")];
    if (this.state === "asking" && reply.held) return [el("span", { class: "held", title: `${reply.held} characters wait for their score` }, `${"·".repeat(Math.min(reply.held, 24))} ${reply.held} held`)];
    if (reply.finish === "length") return [" ", el("span", { class: "soft" }, "(the longest reply asked for)")];
    return reply.text ? [] : [el("span", { class: "soft" }, "(an empty reply)")];
  }

  #fillList() {
    const { prompt, reply, about: { guard: { thresholds } } } = this;
    const rows = [
      ...listed("prompt", prompt.text, prompt.tokens?.slice(prompt.start) ?? [], thresholds.prompt, prompt.start),
      ...listed("reply", reply.text, reply.tokens, thresholds.reply, 0),
    ];
    const head = ["Part", "No.", "Token", "Score", "Guard's threshold"].map((name, i) => el("th", { scope: "col", class: i === 1 || i > 2 ? "num" : false }, name));
    this.list.replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  }
}

/** A text cut into its tokens, tinted; from `end` on struck through, after a mark. */
function tokens(text, scored, threshold, end, mark) {
  const characters = Array.from(text);
  const out = [];
  let place = 0;
  let carried = 0;
  scored.forEach(([chars, score], number) => {
    if (number === end) out.push(el("span", { class: "would" }, mark));
    if (chars === null) return;
    carried = Math.max(carried, score);
    if (chars === 0) return;
    const said = characters.slice(place, place + chars).join("");
    place += chars;
    out.push(token(said, carried, threshold, number, end !== null && number >= end));
    carried = 0;
  });
  if (end === 0 && !scored.length && text) out.push(el("span", { class: "would" }, mark));
  const rest = characters.slice(place).join("");
  if (rest) out.push(end !== null ? el("span", { class: "beyond" }, rest) : rest);
  return out;
}

function token(said, score, threshold, number, beyond) {
  const over = threshold !== null && score >= threshold;
  const span = el("span", { class: `tok${over ? " over" : ""}${beyond ? " beyond" : ""}`, title: `token ${number}: ${shown(score)}${over ? ", at or above the threshold" : ""}` }, said);
  span.style.setProperty("--s", tint(score));
  return span;
}

/** How strong a score is tinted, 0 to 1. */
export function tint(score) {
  return Math.max(0, Math.min(1, (logit(score) - LOW) / (HIGH - LOW))).toFixed(3);
}

/** Verdict and action, apart. */
function judgement(of, { verdict, action, tokens: scored }, about) {
  if (!verdict) return [];
  const title = verdict.clause ? about.guard.clauses[verdict.clause] ?? verdict.clause : null;
  const found = verdict.flagged
    ? `flagged${verdict.position === null ? "" : ` at token ${verdict.position}`}`
    : "passed";
  return [
    el("dl", { class: "pair" },
      el("div", {}, el("dt", {}, "Verdict"), el("dd", { class: verdict.flagged ? "flagged" : "passed" }, found)),
      title ? el("div", {}, el("dt", {}, "Clause"), el("dd", { title: verdict.clause }, title)) : null,
      el("div", {}, el("dt", {}, "Highest score"), el("dd", { class: "mono" }, shown(verdict.score))),
      scored?.length ? el("div", {}, el("dt", {}, "Tokens"), el("dd", { class: "mono" }, String(scored.length))) : null,
      el("div", {}, el("dt", {}, "Action"), el("dd", {}, action === "block" ? (of === "prompt" ? "refused" : "halted") : verdict.flagged ? "let pass (shadow)" : "let pass"))),
  ];
}

/** What another threshold would have done, in words. */
function sentence(would, { reply }) {
  if (would.prompt === "refused") return "At these thresholds the prompt would have been refused.";
  const start = would.prompt === "unknown" ? "The prompt's scores are not known. " : "";
  if (would.reply === "halted") return `${start}At these thresholds the reply would have ended at token ${would.position} of ${reply.tokens.length}, after ${would.left} characters.`;
  if (would.reply === "longer") return `${start}At these thresholds the reply would have gone on; what would have followed was never shown.`;
  if (would.reply === "unknown") return `${start}At these thresholds the prompt would have passed and the model been asked.`;
  return `${start}At these thresholds nothing would have been blocked.`;
}

function listed(part, text, scored, threshold, first) {
  const characters = Array.from(text);
  let place = 0;
  return scored.map(([chars, score], number) => {
    const said = chars === null ? "withheld" : chars === 0 ? "(mark, or part of a character)" : JSON.stringify(characters.slice(place, place + chars).join("")).slice(1, -1);
    place += chars ?? 0;
    const over = score >= threshold;
    return el("tr", { class: over ? "over" : false },
      el("td", {}, part), el("td", { class: "num" }, String(first + number)), el("td", { class: chars ? "mono pre" : "soft" }, said),
      el("td", { class: "num mono" }, shown(score)), el("td", { class: "num" }, over ? "reached" : "below"));
  });
}
