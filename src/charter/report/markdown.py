"""evaluation.json for people without a browser, and for a guard's card: the same figures in Markdown, no text of any item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from charter.redteam.markdown import markdown as redteam
from charter.report.caveats import caveats, percent

DASH = "\u2013"
BEGIN, END = "<!-- charter evaluate: measured -->", "<!-- /charter evaluate -->"
"""Marks around what `charter evaluate` adds to a card, so that the next run replaces it."""


def report(evaluation: Mapping[str, Any], attacked: Mapping[str, Any] | None = None) -> str:
    """The text of report.md; `attacked`: the redteam.json that lies beside it."""
    guard = evaluation["guard"]
    lines = [
        f"# Evaluation of the guard `{guard['name']}`",
        "",
        f"Constitution `{guard['constitution']}`, guard {guard['hash']}, budget {percent(guard['budget'])}, seed {evaluation['seed']}.",
        "95 % intervals in brackets.",
        "",
        "## What may not be concluded",
        *(f"- **{claim}** {reason}" for claim, reason in caveats(evaluation)),
        "",
        *measured(evaluation),
        "",
        *([redteam(attacked, level=2)] if attacked else []),
        "## How to reproduce",
        *_command(evaluation),
        f"Guard {guard['hash']}, seed {evaluation['seed']}; every figure stands in `evaluation.json`, every verdict in `scores.jsonl`.",
    ]
    return "\n".join(lines) + "\n"


def measured(evaluation: Mapping[str, Any]) -> list[str]:
    """The tables: sets, slices, families, clauses, languages, streams, cost, another guard."""
    return [
        *_table("Sets", ("set", "n", "AUROC", "recall", "false positives", "F1", "recall at 1 % FP"), map(_set, evaluation["sets"].items())),
        *_table("False positives by slice", ("slice", "n", "rate"), ((k, r["n"], rate(r["fpr"])) for k, r in evaluation["slices"].items())),
        *_table("Recall by family", ("family", "n", "recall"), ((k, r["n"], rate(r["recall"])) for k, r in evaluation["families"].items())),
        *_table(
            "Recall by clause", ("clause", "n", "recall", "right clause named"),
            ((k, r["n"], rate(r["recall"]), rate(r["named"])) for k, r in evaluation["clauses"].items()),
        ),
        *_table(
            "By language", ("language", "n", "recall", "false positives"),
            ((k, r["n"], rate(r["recall"]), rate(r["fpr"])) for k, r in evaluation.get("languages", {}).items()),
        ),
        *_streams(evaluation),
        *_against(evaluation.get("against")),
    ]  # fmt: skip


def with_measured(card: str, evaluation: Mapping[str, Any]) -> str:
    """A guard's card with what was measured as its last section; an earlier one is replaced."""
    before, _, rest = card.partition(BEGIN)
    after = rest.partition(END)[2]
    section = [BEGIN, "## Measured", "", *_command(evaluation), *measured(evaluation), END]
    return before.rstrip("\n") + "\n\n" + "\n".join(section) + "\n" + after.lstrip("\n")


def rate(figure: Mapping[str, Any]) -> str:
    """12.3 % [10.1, 15.0] (n = 200)."""
    return _shown(figure, 100, 1, " %")


def number(figure: Mapping[str, Any]) -> str:
    """0.83 [0.79, 0.87] (n = 200)."""
    return _shown(figure, 1, 2, "")


def _shown(figure: Mapping[str, Any], scale: int, digits: int, unit: str) -> str:
    if figure["value"] is None:
        return DASH
    value, low, high = (f"{scale * figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}] (n = {figure['n']:,})"


def _set(row: tuple[str, Mapping[str, Any]]) -> tuple[object, ...]:
    name, s = row
    return name, s["n"], number(s["auroc"]), rate(s["recall"]), rate(s["fpr"]), number(s["f1"]), rate(s["recall_at_fpr"]["0.01"])


def _streams(evaluation: Mapping[str, Any]) -> Iterator[str]:
    streaming, cost = evaluation["streaming"], evaluation["cost"]
    yield from ("### Streams and cost", "")
    if streaming["n"]:
        yield (
            f"- {streaming['n']} restricted replies replayed, {streaming['halted']} halted; {streaming['released_unscored_chars']} characters "
            f"released before their score, {streaming['released_after_verdict_chars']} after the verdict."
        )
    else:
        yield "- No restricted reply was there to be replayed."
    for word, share in (streaming.get("held") or {}).items():
        yield f"- Of the halted replies, what had left was graded `{word}`: {rate(share)}."
    yield f"- {cost['guard_flops_per_token'] / 1e6:,.0f} MFLOP a token, {percent(cost['overhead'])} of the upstream {_upstream(cost)}."
    yield ""


def _upstream(cost: Mapping[str, Any]) -> str:
    named = cost.get("upstream")
    return f"{named['name']} ({named['parameters']:.3g} weights; {named['source']})" if named else "asked for"


def _against(found: Mapping[str, Any] | None) -> Iterator[str]:
    if not found:
        return
    rows = (
        (name, number(s["auroc_difference"]), *(_test(s[key]) for key in ("recall", "fpr")))
        for name, s in found["sets"].items()
    )  # fmt: skip
    yield from _table(
        f"Against `{found['guard']['name']}` ({found['guard']['hash']})",
        ("set", "AUROC, this minus other", "recall", "false positives"),
        rows,
    )


def _test(row: Mapping[str, Any]) -> str:
    if row["p"] is None:
        return DASH
    rates = f"{100 * row['this']:.1f} % and {100 * row['other']:.1f} %"
    return f"{rates}, only this {row['only_this']}, only the other {row['only_other']}, p = {row['p_adjusted']:.2g}"


def _table(title: str, head: tuple[str, ...], rows: Any) -> list[str]:
    body = [" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) for row in rows]
    if not body:
        return []
    return [f"### {title}", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {row} |" for row in body), ""]


def _command(evaluation: Mapping[str, Any]) -> list[str]:
    return ["```", str(evaluation["command"]), "```", ""] if evaluation.get("command") else []
