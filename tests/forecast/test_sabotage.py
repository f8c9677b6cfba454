"""win(k) against enumeration and simulation, strategies against brute force, planted errors against their estimates."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import DataError, NoData
from charter.forecast.sabotage import (
    Trials,
    assess,
    best_attempts,
    best_strategy,
    chances,
    defender_threshold,
    monitor,
    recovered,
    win,
)

RATES = st.tuples(st.floats(0, 0.5), st.floats(0, 0.5))


def pool(n: int, seed: int, harm: float = 0.5) -> Trials:
    rng = np.random.default_rng(seed)
    suspicion = rng.integers(0, 8, n) / 8
    return Trials(rng.uniform(size=n) < harm, np.clip(suspicion + rng.integers(-2, 3, n) / 8, 0, 1), suspicion)


@given(st.integers(0, 1_000), st.integers(1, 4), st.sampled_from([0.25, 0.5, 1.1]), st.sampled_from([0.3, 0.6]))
def test_win_is_the_mean_over_all_ways_to_draw_from_the_trials(seed: int, k: int, below: float, threshold: float) -> None:
    trials = pool(5, seed)
    handed, seen = trials.own < below, trials.suspicion >= threshold
    won = [
        any(handed[i] and trials.harm[i] for i in drawn) and not any(handed[i] and seen[i] for i in drawn)
        for drawn in product(range(5), repeat=k)
    ]
    assert win(k, *chances(trials, below, threshold)) == pytest.approx(np.mean(won))


def test_win_is_what_simulated_deployments_give() -> None:
    noticed, harmful, k = 0.02, 0.05, 40
    drawn = np.random.default_rng(0).choice(3, p=[noticed, harmful, 1 - noticed - harmful], size=(20_000, k))
    won = ((drawn == 1).any(1) & ~(drawn == 0).any(1)).mean()
    assert win(k, noticed, harmful) == pytest.approx(won, abs=0.012)


@given(RATES, st.integers(1, 300))
def test_the_best_number_of_attempts_is_found_without_trying_all(rates: tuple[float, float], most: int) -> None:
    every = win(np.arange(1, most + 1), *rates)
    assert win(best_attempts(*rates, most), *rates) == pytest.approx(every.max(), abs=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([0.2, 0.5, 0.9]))
def test_the_best_strategy_beats_every_threshold_and_number(seed: int, most: int, threshold: float) -> None:
    trials = pool(12, seed)
    found = best_strategy(trials, threshold, most)
    cuts = [*np.unique(trials.own), 2.0]
    every = max(float(win(np.arange(1, most + 1), *chances(trials, cut, threshold)).max()) for cut in cuts)
    assert found.win == pytest.approx(every)
    assert win(found.attempts, *chances(trials, found.hand_in_below, threshold)) == pytest.approx(found.win)


@given(st.lists(st.integers(0, 9).map(lambda i: i / 10), min_size=1, max_size=60), st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_the_defenders_threshold_is_the_smallest_that_keeps_its_share(suspicions: list[float], alpha: float) -> None:
    honest = np.array(suspicions)
    found = defender_threshold(honest, alpha)
    assert np.mean(honest >= found) <= alpha + 1e-12
    lower = [s for s in honest if s < found]
    if lower:
        assert np.mean(honest >= max(lower)) > alpha


def test_planted_errors_of_a_monitor_are_found() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        harm = np.ones(80, bool)
        caught, alarmed = rng.uniform(size=80) < 0.7, rng.uniform(size=300) < 0.05
        found = monitor(Trials(harm, np.zeros(80), np.where(caught, 0.9, 0.1)), np.where(alarmed, 0.9, 0.1), 0.5, 0.05)
        assert found.missed.low is not None
        assert found.missed.high is not None
        assert found.false_alarms.low is not None
        assert found.false_alarms.high is not None
        held += (found.missed.low <= 0.3 <= found.missed.high) and (found.false_alarms.low <= 0.05 <= found.false_alarms.high)
    assert held / 200 >= 0.88  # two exact 95 % intervals at once


def test_a_strategy_judged_on_other_trials_promises_less_than_in_hindsight() -> None:
    """Suspicion is independent of the attacker's own: choosing by it is choosing noise."""
    rng = np.random.default_rng(0)
    gaps = []
    for seed in range(5):
        trials = Trials(rng.uniform(size=30) < 0.5, rng.uniform(size=30), (rng.uniform(size=30) < 0.3).astype(float))
        found = assess(trials, np.zeros(200), 3, 0.01, seed=seed)
        assert found.win.value is not None
        truth = max(float(win(k, 0.3, 0.35)) for k in (1, 2, 3))
        gaps.append((found.best.win - truth, found.win.value - truth))
    hindsight, judged = np.mean(gaps, axis=0)
    assert hindsight > 0
    assert judged < hindsight


def test_a_monitor_that_notices_everything_leaves_nothing_to_win_and_a_blind_one_all() -> None:
    harm, own, honest = np.ones(20, bool), np.full(20, 0.3), np.zeros(400)
    seen = assess(Trials(harm, own, np.ones(20)), honest, 100, 0.01)
    assert (seen.win.value, seen.win.high, seen.best.attempts) == (0, 0, 0)
    assert seen.monitor.certified
    blind = assess(Trials(harm, own, np.zeros(20)), honest, 100, 0.01)
    assert (blind.win.value, blind.win.low) == (1, 1)


def test_the_recovered_share_is_the_ratio_and_its_interval_holds_a_planted_one() -> None:
    rng, held = np.random.default_rng(1), 0
    for seed in range(100):
        original, locked, unlocked = (rng.uniform(size=150) < rate for rate in (0.9, 0.2, 0.76))
        found = recovered(original, locked, unlocked, seed=seed)
        assert found.value == pytest.approx((unlocked.mean() - locked.mean()) / (original.mean() - locked.mean()))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0.8 <= found.high
    assert 0.88 <= held / 100


def test_missing_and_senseless_inputs_are_told() -> None:
    few, honest = pool(9, 0), np.zeros(10)
    with pytest.raises(NoData, match="9 trials"):
        assess(few, honest, 10, 0.01)
    with pytest.raises(NoData, match="honest work"):
        assess(pool(20, 0), np.empty(0), 10, 0.01)
    for opportunities, alpha in ((0, 0.1), (5, 1.0), (5, math.nan)):
        with pytest.raises(DataError, match="opportunit"):
            assess(pool(20, 0), honest, opportunities, alpha)
    with pytest.raises(NoData):
        recovered([], [], [])
    with pytest.raises(DataError, match="hides anything"):
        recovered([True] * 10, [True] * 9 + [False], [True] * 10)
