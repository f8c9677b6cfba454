"""What may not be concluded from an evaluation: the sentences that its own numbers call for, and those that always hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from charter.evaluation.datasets import NOT_DRAWN
from charter.statistics import certifiable

HELD_OUT = ("heldout_prompt", "heldout_reply")


def caveats(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of a short claim that must not be made and the reason, the most important first."""
    sets, budget = evaluation["sets"], evaluation["guard"]["budget"]
    found = [
        (
            "That an attacker who tries will be stopped.",
            "No item here was written against this guard. Whoever can ask again and again finds what a fixed list does not hold.",
        )
    ]
    if any(name in sets for name in HELD_OUT):
        found.append(
            (
                "That recall on the held-out sets carries over.",
                "Their rows were written to the same clauses, in the same way, as those the guard learned from; "
                "parents and some families are new, the hand is not. Sets by others are the harder test.",
            )
        )
    if any(name not in sets_held(sets) for name in sets):
        found.append(
            (
                "That a miss on a public set is always a failure, or a catch always a success.",
                "Those rows carry the labels of other people's rules. Where the constitution draws another line, the guard may differ.",
            )
        )
    found += _budget(evaluation["slices"], budget)
    found += _resolution(sets)
    found += _streams(evaluation["streaming"])
    found.append(
        (
            "That the intervals cover everything.",
            "They hold for more rows of the same kind, drawn independently. Disguised copies of one parent are not independent, "
            "so intervals of held-out sets are somewhat too narrow; and a bootstrap around a perfect figure has no width, "
            "which is no proof of perfection.",
        )
    )
    found += _left_out(evaluation.get("left_out", {}))
    return found


def sets_held(sets: Mapping[str, Any]) -> list[str]:
    """Names of the held-out sets among these."""
    return [name for name in HELD_OUT if name in sets]


def _budget(slices: Mapping[str, Any], budget: float) -> list[tuple[str, str]]:
    if not slices:
        return [("Anything about false positives.", "No harmless item was scored.")]
    over = [name for name, row in slices.items() if row["fpr"]["high"] > budget]
    if not over:
        return []
    largest = max(row["n"] for row in slices.values())
    return [
        (
            f"That at most {percent(budget)} of harmless traffic is refused.",
            f"On {len(over)} of {len(slices)} slices the upper bound lies above that budget. The largest slice has {largest:,} rows; "
            f"it takes {certifiable(budget):,} without an error to certify {percent(budget)} on one.",
        )
    ]


def _resolution(sets: Mapping[str, Any]) -> list[tuple[str, str]]:
    coarse = [name for name, s in sets.items() if s["recall_at_fpr"]["0.001"]["value"] is not None and s["n"] - s["positives"] < 1_000]
    if not coarse:
        return []
    names = ", ".join(coarse[:4]) + (f" and {len(coarse) - 4} more" if len(coarse) > 4 else "")
    return [
        (
            "That recall at a false-positive rate of 0.1 % is measured to that precision.",
            f"With fewer than 1,000 harmless rows it is the recall at no observed false positive: so on {names}.",
        )
    ]


def _streams(streaming: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not streaming.get("n"):
        return [("Anything about streams.", "No restricted reply was there to be replayed.")]
    return [
        (
            "That latency on your machine is the one given.",
            "The times were taken on one machine under whatever load it had, one stream at a time.",
        )
    ]


def _left_out(left_out: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    reasons: dict[str, int] = {}
    for counts in left_out.values():
        for reason, n in counts.items():
            reasons[reason] = reasons.get(reason, 0) + n
    if not reasons:
        return []
    told = ", ".join(f"{n:,} ({reason})" for reason, n in sorted(reasons.items(), key=lambda pair: -pair[1]))
    sampled = " The rows not drawn are a random choice by the seed." if NOT_DRAWN in reasons else ""
    return [("That every row given was scored.", f"Left out and not counted in any figure: {told}.{sampled}")]


def percent(rate: float) -> str:
    """0.001 as "0.1 %"."""
    return f"{100 * rate:.3g} %"
