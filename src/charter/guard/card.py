"""The card of a guard: what it was made from, its operating points and their evidence, its limits, in Markdown."""

from __future__ import annotations

from charter.constitution import Constitution
from charter.guard.folder import ClauseRecord, GuardRecord


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
        "",
        "## Data",
        *(f"- {name}: {n:,} examples" for name, n in record.n_examples.items()),
        "",
        "## Operating points",
        f"Budget: {record.budget:.2%} of ordinary traffic, {record.near_miss_budget:.2%} of near misses (dev split, by slice).",
    ]
    for view, point in record.views.items():
        lines += ["", f"**{view}**: flags from probability {point.threshold:.3f} (probe's share {point.mix:g}). {point.sentence}", ""]
        lines += ["| harmless dev exchanges | n | flagged | 95 % bound |", "|---|---|---|---|"]
        lines += [f"| {name} | {e.n:,} | {e.flagged} | {e.bound:.2%} |" for name, e in point.evidence.items()]
        if point.clauses:
            lines += ["", f"Some clauses flag by a threshold of their own; the {view} view's budget and the table above count them in.", ""]
            lines += ["| clause | its budget | flags from | certified | harmless flagged by it alone |", "|---|---|---|---|---|"]
            lines += [_own(name, own) for name, own in point.clauses.items()]
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


def _own(name: str, own: ClauseRecord) -> str:
    """A row of the table of clauses with a threshold of their own."""
    flagged = "; ".join(f"{group}: {e.flagged} of {e.n:,}, at most {e.bound:.2%}" for group, e in own.evidence.items())
    return f"| {name} | {own.budget:.2%} | {own.threshold:.3f} | {'yes' if own.certified else 'no'} | {flagged} |"
