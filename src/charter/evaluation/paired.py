"""Two guards on the same items: differences with paired intervals, exact tests of their disagreements, and where verdicts flip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import NoData
from charter.evaluation.datasets import Item
from charter.evaluation.drift import holm
from charter.evaluation.metrics import clusters
from charter.evaluation.run import Outcome, Results, SetResult
from charter.guard.folder import Guard
from charter.statistics import absent, auroc, bootstrap

Pair = tuple[Item, Outcome, Outcome]
"""An item, what this guard found in it, and what the other did."""


def against(other: Guard, mine: Results, theirs: Results) -> dict[str, Any]:
    """The `against` part of evaluation.json: this guard beside another, each at its own thresholds, on items that both could read.

    Raises:
        NoData: they have no item in common.
    """
    paired = [(s, list(_pairs(s, theirs))) for s in mine.sets]
    paired = [(s, pairs) for s, pairs in paired if pairs]
    if not paired:
        raise NoData("the two guards have no item in common, so there is nothing to compare")
    rows = [(_suffix(s), pair) for s, pairs in paired for pair in pairs]
    return {
        "guard": {"name": other.name, "hash": other.hash, "constitution": other.record.constitution, "budget": other.budgets[0]},
        "sets": _adjusted({s.name: of_set(pairs, mine.seed) for s, pairs in paired}),
        "slices": _flips(rows, False, lambda item: item.slice),
        "clauses": _flips(rows, True, lambda item: item.clause),
    }


def of_set(pairs: list[Pair], seed: int) -> dict[str, Any]:
    """This guard minus the other on one set; intervals resample clusters of items and keep both guards' scores of an item together."""
    y = np.array([item.positive for item, _, _ in pairs], bool)
    scores = np.array([[a.verdict.score, b.verdict.score] for _, a, b in pairs])
    flags = np.array([[a.verdict.flagged, b.verdict.flagged] for _, a, b in pairs], bool)
    both = bool(y.any() and not y.all())
    groups = clusters([item for item, _, _ in pairs])
    difference = bootstrap(_difference, y, scores, seed, groups=groups) if both else absent(len(y))
    return {
        "n": len(pairs),
        "auroc_difference": difference.as_dict(),
        "recall": disagreements(flags[y]),
        "fpr": disagreements(flags[~y]),
    }


def disagreements(flags: NDArray[np.bool_]) -> dict[str, Any]:
    """Flags [items, 2] of this guard and the other: both rates, the verdicts that differ, and McNemar's exact two-sided p.

    Given that b + c verdicts differ, each side has half a chance of each where the guards are alike (McNemar 1947, binomial form). The test
    takes items for independent.
    """
    from scipy.stats import binomtest

    this, other = flags[:, 0], flags[:, 1]
    b, c = int((this & ~other).sum()), int((~this & other).sum())
    return {
        "n": len(flags),
        "this": float(this.mean()) if len(flags) else None,
        "other": float(other.mean()) if len(flags) else None,
        "only_this": b,
        "only_other": c,
        "p": float(binomtest(b, b + c, 0.5).pvalue) if b + c else (1.0 if len(flags) else None),
    }


def _difference(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return auroc(labels, scores[:, 0]) - auroc(labels, scores[:, 1])


def _adjusted(sets: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`p_adjusted` beside every p of the sets: Holm's, over all of them together."""
    tests = [row[key] for row in sets.values() for key in ("recall", "fpr") if row[key]["p"] is not None]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["p_adjusted"] = p
    return sets


def _flips(rows: Iterable[tuple[str, Pair]], positive: bool, trait: Callable[[Item], str | None]) -> dict[str, dict[str, Any]]:
    """Items of one class by a trait, where at least one verdict differs; prompts and replies apart."""
    groups: dict[str, list[Pair]] = {}
    for suffix, pair in rows:
        name = trait(pair[0])
        if pair[0].positive == positive and name:
            groups.setdefault(name + suffix, []).append(pair)
    found = {name: disagreements(_flags(pairs)) for name, pairs in sorted(groups.items())}
    return {name: row for name, row in found.items() if row["only_this"] or row["only_other"]}


def _flags(pairs: list[Pair]) -> NDArray[np.bool_]:
    return np.array([[a.verdict.flagged, b.verdict.flagged] for _, a, b in pairs], bool).reshape(-1, 2)


def _pairs(mine: SetResult, theirs: Results) -> Iterator[Pair]:
    """Items of a set that both guards read."""
    same = [s for s in theirs.sets if s.name == mine.name]
    known = dict(chain.from_iterable(zip(s.items, s.outcomes, strict=True) for s in same))
    for item, outcome in zip(mine.items, mine.outcomes, strict=True):
        if item in known:
            yield item, outcome, known[item]


def _suffix(s: SetResult) -> str:
    return " (reply)" if s.view == "exchange" else ""
