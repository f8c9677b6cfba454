"""The card of a guard: what it was made from, its operating points and their evidence, its limits, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from charter.constitution import Constitution
from charter.guard.record import ClauseRecord, GateRecord, GuardRecord, Thresholds, ViewRecord


def card(record: GuardRecord, constitution: Constitution) -> str:
    """The text of card.md."""
    untaught = [c.id for c in constitution.restricted if c.id not in record.clauses]
    lines = [
        f"# Guard `{record.name}`",
        "",
        f"Guards a language model by the constitution `{record.constitution}` (hash {record.constitution_hash}). {constitution.purpose}",
        "",
        "## What it is",
        f"A screen (hashed word n-grams) and a linear probe on layers {', '.join(map(str, record.layers))} of the backbone `{record.backbone}`, "
        f"with one score overall and one for each of {len(record.clauses)} restricted clauses.",
        *_stages(record),
        "",
        "## Data",
        *(f"- {name}: {n:,} examples" for name, n in record.n_examples.items()),
        "",
        "## Operating points",
    ]
    lines += _point("quiet", "the default", record.budget, record.near_miss_budget, record.views)
    if record.balanced:
        second = record.balanced
        lines += ["", *_point("balanced", "finds more", second.budget, second.near_miss_budget, second.views)]
    lines += [
        "",
        "## Limits",
        "- Probabilities are relative to the dev split's share of restricted exchanges, not to your traffic's.",
        "- Synthetic data: measure on your own traffic before you enforce (`charter evaluate`, `charter serve --mode shadow`).",
        "- Long conversations beyond the backbone's context are refused or passed by the failure policy, never cut.",
    ]
    if untaught:
        lines.append(f"- Too few examples to name these clauses in a verdict: {', '.join(untaught)}.")
    return "\n".join(lines) + "\n"


def _stages(record: GuardRecord) -> list[str]:
    """What is asked only about what looks suspicious, and how often that is."""
    lines = []
    if own := record.ensemble:
        held = f"; {own.held_out} more are held out, by which an attack is judged" if own.held_out else ""
        lines.append(
            f"The linear part is an ensemble of {own.serving} bootstrap members, scored by the log of their mean probability{held}."
        )
        lines += [
            f"{view}: on {d.n:,} {side} dev exchanges the members' probabilities have a standard deviation of {d.value:.3f} [{d.low:.3f}, {d.high:.3f}]."
            for view, sides in own.disagreement.items()
            for side, d in sides.items()
        ]
    if whole := record.whole:
        tuned = ", tuned to the prompts," if whole.tuned else ""
        lines.append(f"A sentence encoder (`{whole.encoder}`){tuned} reads whole turns of the prompt as well; its share is {whole.mix:g}.")
        if whole.gate:
            lines.append(f"It reads {_read(whole.gate)}, from a first glance of {whole.gate.threshold:.2f}.")
    if any(view.head for view in record.views.values()):
        lines.append("A value head (the same backbone, its last blocks fine-tuned) follows on both.")
    for name, view in record.views.items():
        if view.gate:
            by = "the first impression" if record.whole and name == "prompt" else "the screen"
            lines.append(f"{name}: the backbone reads {_read(view.gate)}, from a logit of {by} of {view.gate.threshold:.2f}.")
        if view.head:
            reads = f"{_read(view.head.gate)}, from a logit of {view.head.gate.threshold:.2f}" if view.head.gate else "everything"
            lines.append(f"{name}: the value head's share is {view.head.mix:g}; it reads {reads}.")
    return lines


def _read(gate: GateRecord) -> str:
    return f"{gate.read:.1%} [{gate.low:.1%}, {gate.high:.1%}] of the tokens of {gate.n:,} ordinary dev exchanges"


def _point(name: str, note: str, budget: float, near: float, views: Mapping[Any, Thresholds]) -> list[str]:
    """One operating point and its evidence."""
    lines = [f"### `{name}` ({note})", f"Budget: {budget:.2%} of ordinary traffic, {near:.2%} of near misses (dev split, by slice)."]
    for view, point in views.items():
        share = f" (probe's share {point.mix:g})" if isinstance(point, ViewRecord) else ""
        lines += ["", f"**{view}**: flags from probability {point.threshold:.3f}{share}. {point.sentence}", ""]
        lines += ["| harmless dev exchanges | n | flagged | 95 % bound |", "|---|---|---|---|"]
        lines += [f"| {group} | {e.n:,} | {e.flagged} | {e.bound:.2%} |" for group, e in point.evidence.items()]
        if point.clauses:
            lines += ["", f"Some clauses flag by a threshold of their own; the {view} view's budget and the table above count them in.", ""]
            lines += ["| clause | its budget | flags from | certified | harmless flagged by it alone |", "|---|---|---|---|---|"]
            lines += [_own(clause, own) for clause, own in point.clauses.items()]
    return lines


def _own(name: str, own: ClauseRecord) -> str:
    """A row of the table of clauses with a threshold of their own."""
    flagged = "; ".join(f"{group}: {e.flagged} of {e.n:,}, at most {e.bound:.2%}" for group, e in own.evidence.items())
    return f"| {name} | {own.budget:.2%} | {own.threshold:.3f} | {'yes' if own.certified else 'no'} | {flagged} |"
