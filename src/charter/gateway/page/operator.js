// The operator's view: verdicts as they are found, rates with their intervals, the time that scoring takes, the guarantee's counters.

import { events, json } from "./api.js";
import { byId, el } from "./elements.js";
import { quantile, wilson } from "./statistics.js";
import { shown } from "./whatif.js";

const KEPT = 2000;
const ROWS = 100;
const AGAIN_MS = 3000;
const HEALTH_MS = 2000;

export class Operator {
  constructor() {
    this.findings = new Map();
    this.clauses = {};
    this.paused = false;
    this.watching = null;
    byId("pause").addEventListener("click", () => this.pause(!this.paused));
  }

  /** Begin, or begin again with another key. */
  start() {
    this.stop();
    this.watching = new AbortController();
    this.watch(this.watching.signal);
    this.health(this.watching.signal);
  }

  stop() {
    this.watching?.abort();
  }

  pause(paused) {
    this.paused = paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    this.say(paused ? "Paused; verdicts are still counted." : "Live");
    if (!paused) this.draw();
  }

  say(text) {
    if (byId("live-state").textContent !== text) byId("live-state").textContent = text;
  }

  async watch(signal) {
    while (!signal.aborted) {
      try {
        this.say(this.paused ? "Paused; verdicts are still counted." : "Live");
        for await (const finding of events("playground/events", { signal })) this.found(finding);
      } catch (error) {
        if (signal.aborted) return;
        this.say(`Not connected: ${error.message}`);
      }
      await wait(AGAIN_MS);
    }
  }

  found(finding) {
    this.findings.set(finding.id, finding);
    if (this.findings.size > KEPT) this.findings.delete(this.findings.keys().next().value);
    this.due ??= requestAnimationFrame(() => {
      this.due = undefined;
      if (!this.paused) this.draw();
    });
  }

  async health(signal) {
    while (!signal.aborted) {
      const told = await json("healthz").catch(() => null);
      if (signal.aborted) return;
      if (told) this.drawHealth(told);
      await wait(HEALTH_MS);
    }
  }

  drawHealth({ counters: c, shadow_guard: shadow }) {
    byId("guarantee").replaceChildren(
      figure("characters released unscored", c.released_unscored_chars, c.released_unscored_chars > 0),
      figure("characters released after a verdict", c.released_after_verdict_chars, c.released_after_verdict_chars > 0),
      figure("prompts blocked", c.blocked_prompts),
      figure("replies blocked", c.blocked_replies),
      figure("requests", c.requests),
      figure("scoring steps failed", c.errors, c.errors > 0),
    );
    byId("shadow").hidden = !shadow;
    if (shadow) byId("shadow-figures").replaceChildren(...flat(shadow).map(([name, value]) => figure(name.replaceAll("_", " "), value)));
  }

  draw() {
    const all = [...this.findings.values()];
    this.drawLatency(all);
    this.drawClauses(all);
    const rows = all.slice(-ROWS).reverse().map((f) => row(f, this.clauses));
    byId("live").tBodies[0].replaceChildren(...rows);
  }

  drawLatency(all) {
    const figures = ["prompt", "reply"].flatMap((stage) => {
      const times = all.filter((f) => f.stage === stage && !f.error).map((f) => f.latency_ms);
      return [0.5, 0.95].map((q) => figure(`${stage === "prompt" ? "prompts" : "whole replies"}, p${q * 100} (n = ${times.length})`, times.length ? `${ms(quantile(times, q))} ms` : "no data"));
    });
    byId("latency").replaceChildren(...figures);
    byId("latency-about").textContent = `Of the last ${all.length} verdicts that this page has seen, waits for a free thread included.`;
  }

  drawClauses(all) {
    const scored = all.filter((f) => f.verdict !== "unscored");
    const counts = new Map();
    for (const f of scored) if (f.verdict === "flagged") counts.set(f.clause ?? "", (counts.get(f.clause ?? "") ?? 0) + 1);
    const flagged = scored.filter((f) => f.verdict === "flagged").length;
    const rows = [["any clause", flagged], ...[...counts].sort((a, b) => b[1] - a[1]).map(([clause, k]) => [this.clauses[clause] ?? (clause || "no clause named"), k])];
    byId("clauses").tBodies[0].replaceChildren(...rows.map(([name, k]) => rate(name, k, scored.length)));
    const unscored = all.length - scored.length;
    byId("clauses-about").textContent = `Of ${scored.length} verdicts, prompts and replies together` + (unscored ? `; ${unscored} more could not be scored.` : ".");
  }
}

function rate(name, k, n) {
  const interval = wilson(k, n);
  const bar = el("div", { class: "gauge", "aria-hidden": "true" }, el("div", {}));
  bar.firstChild.style.setProperty("inline-size", `${n ? (100 * k) / n : 0}%`);
  return el("tr", {},
    el("th", { scope: "row" }, name), el("td", { class: "num mono" }, String(k)),
    el("td", { class: "num mono" }, n ? percent(k / n) : "no data"),
    el("td", { class: "num mono" }, interval ? `${percent(interval[0])} to ${percent(interval[1])}` : "no data"),
    el("td", { class: "barred" }, bar));
}

function row(f, clauses) {
  const number = (text) => el("td", { class: "num mono" }, text);
  return el("tr", { class: f.verdict === "flagged" ? "over" : false },
    el("td", { class: "mono" }, el("time", { datetime: f.time }, f.time.slice(11, 19))), el("td", {}, f.stage),
    el("td", { class: f.verdict, title: f.error }, f.verdict), el("td", {}, f.action),
    el("td", { title: f.clause }, f.clause ? clauses[f.clause] ?? f.clause : "–"),
    number(f.error ? "–" : shown(f.score)), number(f.position === null ? "–" : String(f.position)), number(ms(f.latency_ms)), el("td", { class: "soft" }, f.surface));
}

function figure(name, value, alarming = false) {
  return el("div", { class: alarming ? "alarming" : false }, el("dt", {}, name), el("dd", { class: "mono" }, typeof value === "number" ? value.toLocaleString("en") : String(value)));
}

/** Leaves of an object with the names that lead to them. */
function flat(value, name = "") {
  if (value === null || typeof value !== "object") return [[name, value ?? "–"]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, name ? `${name} ${key}` : key));
}

const ms = (time) => (time < 10 ? time.toFixed(1) : time.toFixed(0));
const percent = (share) => `${(100 * share).toFixed(1)} %`;
const wait = (time) => new Promise((go) => setTimeout(go, time));
