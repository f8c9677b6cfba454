// What another threshold would have done, from the scores alone. Tokens are [characters or null, score]; null stands for withheld text.

/** Log-odds, within the slider's ends. */
export const ENDS = 6.9;
export const logit = (p) => Math.max(-ENDS, Math.min(ENDS, Math.log(p / (1 - p))));
export const probability = (x) => 1 / (1 + Math.exp(-x));

/** A probability for reading: as many digits as tell it from 0 and 1. */
export const shown = (p) => (p > 0.001 && p < 0.01) || (p > 0.99 && p < 0.999) ? p.toFixed(4) : p <= 0.001 && p > 0 ? "< 0.001" : p.toFixed(2);

/**
 * Number of the first token that flags at a threshold, or null.
 * `verdict` is the guard's own: where a clause flagged by a threshold of its own, below the overall one, that flag stays.
 */
export function flaggedAt(tokens, threshold, verdict = null, own = null) {
  const first = tokens.findIndex(([, score]) => score >= threshold);
  const byClause = verdict?.flagged && own !== null && verdict.position !== null && (tokens[verdict.position]?.[1] ?? verdict.score) < own;
  if (threshold === own && verdict) return verdict.flagged ? verdict.position : null;
  if (byClause) return first < 0 ? verdict.position : Math.min(first, verdict.position);
  return first < 0 ? null : first;
}

/**
 * What a threshold would have made of an exchange, beside what happened.
 * Returns { prompt: "refused" | "passed" | "unknown", at, reply: "halted" | "passed" | "longer" | "none" | "unknown", position, left }.
 * "none": the prompt would have been refused, so no reply. "longer": the reply would have gone on past where it was ended.
 */
export function outcome(exchange, thresholds, own) {
  const { prompt, reply } = exchange;
  const at = prompt.tokens ? flaggedAt(prompt.tokens, thresholds.prompt, prompt.verdict, own.prompt) : null;
  const asked = !prompt.tokens ? "unknown" : at === null ? "passed" : "refused";
  if (asked === "refused") return { prompt: asked, at, reply: "none", position: null, left: 0 };
  if (!reply.tokens.length) return { prompt: asked, at, reply: prompt.verdict?.flagged ? "unknown" : "passed", position: null, left: 0 };
  const position = flaggedAt(reply.tokens, thresholds.reply, reply.verdict, own.reply);
  const left = charactersBefore(reply.tokens, position);
  if (position !== null) return { prompt: asked, at, reply: "halted", position, left };
  return { prompt: asked, at, reply: reply.verdict?.flagged ? "longer" : "passed", position, left };
}

/** Characters that stand before a token; all where it is null. */
export function charactersBefore(tokens, position) {
  return tokens.slice(0, position ?? tokens.length).reduce((sum, [chars]) => sum + (chars ?? 0), 0);
}

/** The tokens of the last turn of a prompt: those that cover its last so many characters, the mark that ends it left out. */
export function lastTurn(tokens, characters) {
  let start = tokens.length;
  for (let covered = 0; start > 0 && covered < characters; start -= 1) covered += tokens[start - 1][0] ?? 0;
  return { start, tokens: tokens.slice(start) };
}
