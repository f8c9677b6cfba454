"""Calibration: every budget is kept, by the smallest threshold that keeps them, and what can't be certified is said."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from charter.errors import NoData
from charter.guard.record import SliceEvidence, ViewRecord
from charter.models.calibrate import Calibration, ViewPolicy, calibrate, platt
from charter.statistics import certifiable

SLICES = ("chat", "code", "science", "permitted:locks", "permitted:keys")


@cache
def _bound(flagged: int, n: int) -> float:
    """A second source for the one-sided 95 % bound: the two-sided 90 % interval of SciPy."""
    return float(binomtest(flagged, n).proportion_ci(confidence_level=0.90, method="exact").high)


def _kept(scores: dict[str, np.ndarray], threshold: float, budget: float, near_miss_budget: float) -> bool:
    """Brute force over slices: large ones by their bound, small ones and all near misses pooled; a small pool by what was observed."""
    for near, rate in ((False, budget), (True, near_miss_budget)):
        slices = [s for name, s in scores.items() if name.startswith("permitted:") == near and len(s)]
        enough = certifiable(rate)
        groups = [s for s in slices if len(s) >= enough and not near]
        if small := [s for s in slices if len(s) < enough or near]:
            groups.append(np.concatenate(small))
        for group in groups:
            flagged, n = int((group >= threshold).sum()), len(group)
            if (_bound(flagged, n) if n >= enough else flagged / n) > rate:
                return False
    return True


@settings(max_examples=60)
@given(
    scores=st.dictionaries(
        st.sampled_from(SLICES),
        st.tuples(st.integers(1, 120), st.integers(0, 2**32 - 1), st.integers(1, 3)),
        min_size=1,
    ),
    budget=st.sampled_from([0.03, 0.05, 0.1, 0.29]),
    near_miss_budget=st.sampled_from([0.05, 0.1, 0.29, 0.57]),
)
def test_every_budget_is_kept_by_the_smallest_threshold(
    scores: dict[str, tuple[int, int, int]], budget: float, near_miss_budget: float
) -> None:
    """Scores rounded to one to three digits, so that many are tied."""
    drawn = {name: np.round(np.random.default_rng(seed).random(n), digits) for name, (n, seed, digits) in scores.items()}
    found = calibrate(drawn, budget, near_miss_budget)
    assert _kept(drawn, found.threshold, budget, near_miss_budget)
    candidates = [0.0, *(np.nextafter(s, 2) for scores in drawn.values() for s in scores)]
    assert found.threshold == min(t for t in candidates if _kept(drawn, t, budget, near_miss_budget))
    for name, evidence in found.evidence.items():
        group = drawn.get(name)
        if group is not None:
            assert (evidence.n, evidence.flagged) == (len(group), int((group >= found.threshold).sum()))
        assert evidence.bound == pytest.approx(_bound(evidence.flagged, evidence.n))
    assert sum(e.n for e in found.evidence.values()) == sum(map(len, drawn.values()))


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from(SLICES), st.integers(1, 150), min_size=1), st.sampled_from([0.02, 0.05]), st.sampled_from([0.05, 0.2])
)
def test_certified_means_that_every_groups_bound_meets_its_budget(sizes: dict[str, int], budget: float, near_miss_budget: float) -> None:
    found = calibrate({name: np.linspace(0, 0.9, n) for name, n in sizes.items()}, budget, near_miss_budget)
    near = ("permitted:", "near misses")
    short = {name for name, e in found.evidence.items() if e.bound > (near_miss_budget if name.startswith(near) else budget)}
    assert found.certified == (not short)
    if short:
        assert "can't be certified" in found.sentence
        assert any(name in found.sentence for name in short)
    else:
        assert found.sentence.startswith("The budget is certified: ")
        assert all(name in found.sentence for name in found.evidence)


def test_a_tenth_of_a_percent_takes_2995_harmless_exchanges_without_an_error() -> None:
    assert certifiable(0.001) == 2995
    scores = np.linspace(0, 0.5, 2995)
    enough, short = calibrate({"chat": scores}, 0.001, 0.1), calibrate({"chat": scores[1:]}, 0.001, 0.1)
    assert (enough.certified, enough.evidence["chat"].flagged) == (True, 0)
    assert enough.threshold == np.nextafter(0.5, 1)
    assert not short.certified
    assert "The budget of 0.10% can't be certified on ordinary traffic (small slices together): 2 of 2,994" in short.sentence
    assert "It takes 2,995 harmless exchanges without an error to certify 0.10%." in short.sentence


def test_the_sentence_names_the_worst_of_what_cannot_be_certified() -> None:
    found = calibrate({"chat": np.linspace(0, 0.5, 400), "permitted:locks": [0.1, 0.2]}, 0.01, 0.1)
    assert not found.certified
    assert (
        "The budget of 10.00% can't be certified on near misses (all slices together): 0 of 2 flagged, so at most 77.64%" in found.sentence
    )
    assert found.evidence["chat"].bound <= 0.01


def test_near_misses_have_a_budget_of_their_own() -> None:
    scores = {"chat": np.full(400, 0.1), "permitted:locks": np.linspace(0.2, 0.8, 400)}
    assert calibrate(scores, 0.01, 0.5).threshold < 0.55
    assert calibrate(scores, 0.01, 0.01).threshold > 0.79


def test_empty_slices_are_left_out_and_nothing_at_all_is_an_error() -> None:
    assert calibrate({"chat": [0.1] * 60, "code": []}, 0.05, 0.1).evidence.keys() == {"chat"}
    for nothing in ({}, {"chat": []}):
        with pytest.raises(NoData):
            calibrate(nothing, 0.01, 0.1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0.05, 20), st.floats(-50, 50))
def test_however_high_a_harmless_score_its_threshold_can_be_written_down(logits: list[float], temperature: float, offset: float) -> None:
    found = calibrate({"chat": ViewPolicy(0.5, temperature, offset).probability(logits)}, 0.01, 0.1)
    evidence = {name: SliceEvidence(n=e.n, flagged=e.flagged, bound=e.bound) for name, e in found.evidence.items()}
    view = ViewRecord(
        threshold=found.threshold,
        temperature=temperature,
        offset=offset,
        mix=0.5,
        certified=found.certified,
        sentence=found.sentence,
        evidence=evidence,
    )
    assert isinstance(found, Calibration)
    assert 0 < view.threshold <= 1


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(20, 300), st.floats(0.2, 20), st.floats(-3, 3))
def test_platt_is_a_logistic_regression_on_platts_targets(seed: int, n: int, scale: float, shift: float) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.4
    y[:2] = [True, False]
    z = scale * (rng.normal(size=n) + 1.5 * y) + shift
    temperature, offset = platt(z, y)
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))
    twice = np.concatenate([z, z])[:, None]
    model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=2_000)
    model.fit(twice, np.repeat([1, 0], n), sample_weight=np.concatenate([target, 1 - target]))
    expected = model.predict_proba(z[:, None])[:, 1]
    np.testing.assert_allclose(ViewPolicy(0.5, temperature, offset).probability(z), expected, atol=5e-3)


def test_separable_scores_keep_a_finite_temperature_and_one_class_is_an_error() -> None:
    temperature, offset = platt([-3.0] * 20 + [3.0] * 20, [False] * 20 + [True] * 20)
    assert 0.5 < temperature < 2
    assert offset == pytest.approx(0, abs=1e-2)
    for labels in ([True, True], [False, False]):
        with pytest.raises(NoData):
            platt([0.0, 1.0], labels)


def test_a_wide_budget_does_not_judge_slices_too_small_for_the_strict_one() -> None:
    """Thirty rows certify 10 % only without any flag: alone, one stray row among thousands would set the threshold."""
    scores = {"chat": np.linspace(0, 0.5, 200), "odd": np.append(np.zeros(29), 0.99)}
    assert calibrate(scores, 0.1, 0.25).threshold > 0.99
    together = calibrate(scores, 0.1, 0.25, alone=0.01)
    assert together.threshold < 0.5
    assert together.certified
