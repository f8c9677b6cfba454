"""Thresholds from stored scores: each budget is kept by the smallest threshold, the clauses' own and the overall one together."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from charter.errors import DataError, NoData
from charter.models.calibrate import ABOVE_ALL, ViewPolicy, calibrate, platt
from charter.models.recalibrate import DevScores, point, recall
from charter.statistics import certifiable

SLICES = ("chat", "code", "permitted:locks", "restricted:locks")


def scores(seed: int, rows: int = 300, clauses: int = 2, digits: int = 1) -> DevScores:
    """Half of the rows restricted, each by one clause; logits rounded, so that many are tied."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((rows, 1 + clauses), bool)
    labels[: rows // 2, 0] = True
    labels[np.arange(rows // 2), 1 + np.arange(rows // 2) % clauses] = True
    logits = np.round(rng.normal(-2, 1.5, (rows, 1 + clauses)) + 3.0 * labels, digits).astype(np.float32)
    return DevScores(logits, labels, SLICES, rng.integers(0, len(SLICES), rows).astype(np.int32))


@cache
def _bound(k: int, n: int) -> float:
    return 1.0 if k == n else float(beta.ppf(0.95, k + 1, n - k))


def _keeps(dev: DevScores, flagged: np.ndarray, budget: float, near_miss_budget: float) -> bool:
    """Brute force: slices large enough by their bound, the rest of ordinary traffic and the near misses pooled."""
    harmless = ~dev.labels[:, 0]
    near = np.array([SLICES[n].startswith(("permitted:", "restricted:")) for n in dev.slice_of])
    groups = [(near, near_miss_budget)]
    sizes = {n: int((harmless & (dev.slice_of == n)).sum()) for n in (0, 1)}
    large = [n for n in sizes if sizes[n] >= certifiable(budget)]
    groups += [(dev.slice_of == n, budget) for n in large]
    groups.append((~near & ~np.isin(dev.slice_of, large), budget))
    for rows, rate in groups:
        n, k = int((rows & harmless).sum()), int((rows & harmless & flagged).sum())
        if n and (_bound(k, n) if n >= certifiable(rate) else k / n) > rate:
            return False
    return True


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([0.05, 0.1, 0.2]), st.sampled_from([0.1, 0.3]), st.sampled_from([0.02, 0.05]))
def test_own_and_overall_thresholds_are_the_smallest_that_keep_their_budgets(seed: int, budget: float, near: float, own: float) -> None:
    dev = scores(seed)
    found = point(dev, budget, near, {1: own, 0: budget - own} if own < budget else {1: own})
    p = ViewPolicy(1.0, found.temperature, found.offset).probability(dev.logits)
    candidates = [0.0, *np.nextafter(np.unique(p), 2)]
    taken = np.zeros(len(p), bool)
    for clause in sorted(found.own):
        head, rate = p[:, 1 + clause], found.own[clause].budget
        allowed = [
            t for t in candidates if _keeps(dev, head >= t, rate, near * rate / budget) and _keeps(dev, taken | (head >= t), budget, near)
        ]
        assert found.own[clause].calibration.threshold == min(allowed)
        taken |= head >= min(allowed)
    union = [t for t in candidates if _keeps(dev, (p[:, 0] >= t) | taken, budget, near)]
    assert found.calibration.threshold == min(union)
    flagged = found.policy(2).fires(p)
    np.testing.assert_array_equal(flagged, (p[:, 0] >= min(union)) | taken)
    harmless = ~dev.labels[:, 0]
    assert sum(e.flagged for e in found.calibration.evidence.values()) == int((flagged & harmless).sum())
    assert sum(e.n for e in found.calibration.evidence.values()) == int(harmless.sum())


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1]))
def test_without_own_budgets_it_is_the_calibration_of_the_overall_head(seed: int, budget: float) -> None:
    dev = scores(seed)
    found = point(dev, budget, 0.2, {})
    assert (found.temperature, found.offset) == platt(dev.logits[:, 0], dev.labels[:, 0])
    p = ViewPolicy(1.0, found.temperature, found.offset).probability(dev.logits[:, 0])
    harmless = {name: p[(dev.slice_of == n) & ~dev.labels[:, 0]] for n, name in enumerate(SLICES)}
    assert found.calibration == calibrate(harmless, budget, 0.2)
    assert found.policy(2).clause_thresholds == ()


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_a_clauses_own_threshold_never_lowers_the_overall_one(seed: int) -> None:
    dev = scores(seed)
    alone, both = point(dev, 0.1, 0.3, {}), point(dev, 0.1, 0.3, {0: 0.03})
    assert both.calibration.threshold >= alone.calibration.threshold


def test_a_clause_with_no_restricted_row_is_passed_over() -> None:
    dev = scores(0)
    dev.labels[:, 2] = False
    found = point(dev, 0.1, 0.3, {0: 0.03, 1: 0.03})
    assert set(found.own) == {0}
    assert found.policy(2).clause_thresholds == (found.own[0].calibration.threshold, ABOVE_ALL)


def test_clauses_that_use_up_more_than_the_guards_budget_are_refused() -> None:
    with pytest.raises(DataError, match=r"come to 12\.00%, more than the guard's 10\.00%"):
        point(scores(0), 0.1, 0.3, {0: 0.06, 1: 0.06})


def test_one_class_alone_is_an_error() -> None:
    dev = scores(0)
    for value in (True, False):
        dev.labels[:] = value
        with pytest.raises(NoData):
            point(dev, 0.1, 0.3, {})


def test_recall_counts_each_heads_own_rows() -> None:
    dev = scores(3)
    policy = ViewPolicy(0.5, 1.0, 0.0, (ABOVE_ALL, 0.4))
    p = 1 / (1 + np.exp(-dev.logits.astype(float)))
    flagged = (p[:, 0] >= 0.5) | (p[:, 2] >= 0.4)
    for head in range(3):
        found = recall(dev, policy, head)
        assert (found.value, found.n) == (flagged[dev.labels[:, head]].mean(), dev.labels[:, head].sum())
    dev.labels[:, 1] = False
    assert recall(dev, policy, 1).value is None
