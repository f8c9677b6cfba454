"""Comparison of two guards against second sources: DeLong by hand, SciPy's binomial test, brute force."""

from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import NoData
from charter.evaluation.datasets import Item
from charter.evaluation.paired import against, disagreements, of_set
from charter.evaluation.run import Outcome, Results, SetResult, evaluate
from charter.guard.folder import Guard
from charter.records import Exchange, Turn, Verdict
from charter.statistics import auroc


def pairs(labels: np.ndarray, scores: np.ndarray) -> list[tuple[Item, Outcome, Outcome]]:
    """Items with the scores [items, 2] of two guards that flag from 0."""
    return [
        (
            Item(Exchange(str(n), (Turn("user", f"text {n}"),)), bool(y), "s"),
            *(Outcome(Verdict(bool(v > 0), float(v), None, None), 1) for v in own),
        )
        for n, (y, own) in enumerate(zip(labels, scores, strict=True))
    ]


def delong(y: np.ndarray, s: np.ndarray) -> tuple[float, float]:
    """Difference of two AUROCs and its standard error (DeLong, DeLong and Clarke-Pearson 1988), by the definition."""
    kernel = [(a[y][:, None] > a[~y][None, :]) + 0.5 * (a[y][:, None] == a[~y][None, :]) for a in s.T]
    x, n = (np.array([k.mean(axis) for k in kernel]) for axis in (1, 0))
    cov = np.cov(x) / y.sum() + np.cov(n) / (~y).sum()
    return float(kernel[0].mean() - kernel[1].mean()), float(np.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]))


def test_the_difference_and_its_interval_agree_with_delong() -> None:
    rng = np.random.default_rng(5)
    y = np.arange(600) < 250
    common = rng.normal(0, 1, 600)
    s = np.stack([common + 1.5 * y + 0.5 * rng.normal(0, 1, 600), common + 1.2 * y + 0.5 * rng.normal(0, 1, 600)], 1)
    value, error = delong(y, s)
    found = of_set(pairs(y, s), seed=0)["auroc_difference"]
    assert found["value"] == pytest.approx(value)
    assert (found["high"] - found["low"]) / (2 * 1.96) == pytest.approx(error, rel=0.12)
    assert (found["high"] + found["low"]) / 2 == pytest.approx(value, abs=0.3 * error)
    unpaired = np.sqrt(sum(auroc(y, a) * (1 - auroc(y, a)) for a in s.T) / 250)
    assert error < unpaired, "pairing narrows the interval"


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5))
def test_mcnemar_is_the_two_sided_binomial_test_of_the_verdicts_that_differ(b: int, c: int, same: int) -> None:
    flags = np.array([[1, 0]] * b + [[0, 1]] * c + [[1, 1], [0, 0]] * same, bool).reshape(-1, 2)
    found = disagreements(flags)
    assert (found["only_this"], found["only_other"], found["n"]) == (b, c, b + c + 2 * same)
    if len(flags) == 0:
        assert found["p"] is found["this"] is None
        return
    n = b + c
    extreme = sum(comb(n, k) for k in range(n + 1) if comb(n, k) <= comb(n, b)) / 2**n
    assert found["p"] == pytest.approx(extreme)


def test_a_guard_against_itself_differs_in_nothing(guard: Guard, sets: list) -> None:
    results = evaluate(guard, sets)
    found = against(guard, results, results)
    assert found["slices"] == found["clauses"] == {}
    for row in found["sets"].values():
        assert (row["auroc_difference"]["value"], row["auroc_difference"]["low"], row["auroc_difference"]["high"]) == (0, 0, 0)
        assert {row[key][part] for key in ("recall", "fpr") for part in ("only_this", "only_other")} == {0}
        assert {row[key]["p_adjusted"] for key in ("recall", "fpr")} == {1.0}


def test_flips_are_told_by_slice_and_clause_and_tests_are_adjusted_for_their_number(guard: Guard, sets: list) -> None:
    mine = evaluate(guard, sets)
    silent = tuple(
        replace(s, outcomes=tuple(replace(o, verdict=Verdict(False, 0.0, None, None)) for o in s.outcomes)) for s in mine.sets
    )  # fmt: skip
    found = against(guard, mine, Results("silent", 0, silent, {}))
    caught = sum(bool(o.verdict.flagged) for s in mine.sets for i, o in zip(s.items, s.outcomes, strict=True) if i.positive)
    assert sum(row["only_this"] for row in found["clauses"].values()) == caught > 0
    assert all(row["only_other"] == 0 for row in found["clauses"].values())
    for row in found["sets"].values():
        assert row["recall"]["p_adjusted"] >= row["recall"]["p"]
        assert row["recall"]["other"] == 0


def test_nothing_in_common_is_an_error(guard: Guard) -> None:
    items = pairs(np.array([True, False]), np.zeros((2, 2)))
    one = SetResult("a", "prompt", (items[0][0],), (items[0][1],))
    two = SetResult("a", "prompt", (items[1][0],), (items[1][1],))
    with pytest.raises(NoData, match="nothing to compare"):
        against(guard, Results("x", 0, (one,), {}), Results("y", 0, (two,), {}))
