"""redteam.json for people, as Markdown: the same figures, no text of any attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DASH = "–"


def markdown(told: Mapping[str, Any], level: int = 1) -> str:
    """The report; `level`: of its title, where it is a part of another."""
    target, queries, asked = told["target"], told["queries"], told["questions"]
    title = "#" * level
    lines = [
        f"{title} Red team: {target['name']}",
        "",
        f"{queries['used']:,} of a budget of {queries['budget']:,} queries, {asked['attacked']:,} questions ({asked['graded']:,} graded against "
        f"unguarded answers), {len(told['strategies']):,} strategies, seed {told['seed']}. Besides: {queries['unguarded']:,} queries for unguarded "
        f"answers, {queries['scored_by_guard']:,} prompts scored by the guard for searches. Intervals: 95 %; attempts at one question count together.",
        "",
        f"**Attempts that succeeded: {rate(told['overall']['success'])}.** Complied: {rate(told['overall']['complied'])}. Of the replies "
        f"that came, {rate(told['overall']['replies_complied'])} complied; corrected for the judge's error: "
        f"{rate(told['overall']['replies_complied_corrected'])}.",
        "",
        f"{title}# What may not be concluded",
        "",
        *(f"- {sentence}" for sentence in told["cautions"]),
        "",
        f"{title}# By strategy",
        "",
        *_table(told["strategies"], told["universal"]),
        "",
        *([told["universal"]["ranking"], ""] if told["universal"] else []),
        *(_universal(told["universal"]) if told["universal"] else []),
        f"{title}# By family, template or step",
        "",
        *_table(told["families"], None),
        "",
        f"{title}# The judge",
        "",
        *_judge(told["judge"]),
    ]
    return "\n".join(lines) + "\n"


def rate(figure: Mapping[str, Any] | None) -> str:
    """A share with its interval in per cent, and its n; a dash where there is none."""
    if figure is None or figure["value"] is None:
        return DASH
    value, low, high = (100 * figure[key] for key in ("value", "low", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}] (n = {figure['n']:,})"


def _table(rows: Mapping[str, Any], universal: Mapping[str, Any] | None) -> list[str]:
    out = [
        "| | succeeded | complied | refused | blocked | unscored | questions cleared [Poisson 95 %] |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        o = row["outcomes"]
        cleared = (universal or {}).get("strategies", {}).get(name)
        count = f"{cleared['cleared']:,} of {cleared['tried']:,} [{cleared['low']:.1f}, {cleared['high']:.1f}]" if cleared else DASH
        cells = [
            f"`{name}`".replace("|", "\\|"),
            rate(row["success"]),
            *(f"{o[key]:,}" for key in ("complied", "refused", "blocked", "unscored")),
        ]
        out.append(f"| {' | '.join([*cells, count])} |")
    return out


def _universal(found: Mapping[str, Any]) -> list[str]:
    def named(names: list[str]) -> str:
        return ", ".join(f"`{name}`" for name in names) or "none"

    return [
        f"**Universal jailbreaks** over {found['questions']:,} questions. Clear all: {named(found['clear_all'])}. "
        f"Clear more than half: {named(found['clear_most'])}.",
        "",
    ]


def _judge(judge: Mapping[str, Any]) -> list[str]:
    lines = [f"Detail graded by: {judge['grader']}. Success from {judge['enough']:.0%} of the unguarded score.", ""]
    for error in (judge["error"], judge["own_error"]):
        if error:
            lines.append(f"- {error['source']}: sensitivity {rate(error['sensitivity'])}, specificity {rate(error['specificity'])}")
    return lines
