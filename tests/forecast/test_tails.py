"""Fits against closed forms, SciPy and brute force; intervals against their promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import expon, genpareto, kstest, linregress

from charter.errors import DataError
from charter.forecast.elicitation import psi_of
from charter.forecast.tails import Method, Tail, estimate, fit, moments, unit_heads
from charter.forecast.validation import PowerLaw

METHODS: tuple[Method, ...] = ("paper", "half-rank", "likelihood", "gpd")
STRAIGHT = METHODS[:3]


def test_the_line_through_exact_quantiles_of_uniform_probabilities_has_slope_minus_one_and_intercept_zero() -> None:
    m = 1_000_000
    head = psi_of(np.log1p(-np.arange(1, 12) / m))
    tail = estimate(head, m, "paper")
    assert -1 / tail.scale == pytest.approx(-1, abs=1e-4)
    assert tail.threshold / tail.scale == pytest.approx(0, abs=2e-3)


def test_the_line_through_exact_quantiles_of_a_power_law_is_that_law() -> None:
    alpha, c, m = 8, 30, 1_000
    head = psi_of(-c * (np.arange(1, 12) / m) ** (1 / alpha))
    tail = estimate(head, m, "paper")
    assert -1 / tail.scale == pytest.approx(-alpha)
    assert tail.threshold / tail.scale == pytest.approx(-alpha * math.log(c))  # b = -27.2096
    for n, q in ((1e3, 3.2e-6), (1e6, 4.82e-3)):
        assert math.exp(-math.exp(-float(tail.psi(1 / n)))) == pytest.approx(q, rel=0.01)


@given(st.integers(5, 40), st.integers(0, 2**31), st.sampled_from([("paper", 0.0), ("half-rank", 0.5)]))
def test_least_squares_are_scipys(k: int, seed: int, way: tuple[Method, float]) -> None:
    head = np.sort(np.random.default_rng(seed).normal(size=k + 1))[::-1]
    line = linregress(head[:k], np.log((np.arange(1, k + 1) - way[1]) / 500))
    tail = estimate(head, 500, way[0])
    assert tail.log_survival(1.3) == pytest.approx(line.slope * 1.3 + line.intercept, rel=1e-9)


@given(st.integers(6, 60), st.integers(0, 2**31))
def test_the_likelihood_is_scipys_exponential_and_no_other_scale_is_likelier(k: int, seed: int) -> None:
    head = np.sort(np.random.default_rng(seed).normal(size=k + 1))[::-1]
    excesses = head[:k] - head[k]
    tail = estimate(head, 1_000, "likelihood")
    assert tail.scale == pytest.approx(expon.fit(excesses, floc=0)[1])
    best = expon.logpdf(excesses, scale=tail.scale).sum()
    assert all(expon.logpdf(excesses, scale=tail.scale * other).sum() < best for other in (0.9, 1.1))


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_moments_find_the_shape_and_scale_of_scipys_generalised_pareto(shape: float) -> None:
    drawn = genpareto.rvs(shape, scale=2.5, size=200_000, random_state=1)
    found = moments(np.sort(drawn)[::-1])
    assert found == (pytest.approx(shape, abs=0.02), pytest.approx(2.5, rel=0.02))


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_a_tail_is_scipys_generalised_pareto_and_its_two_faces_are_inverse(shape: float) -> None:
    tail = Tail(*(np.array(x) for x in (1.5, 0.05, 0.4, shape)))
    psi = np.linspace(1.5, 2.5, 9)
    assert tail.log_survival(psi) == pytest.approx(np.log(0.05) + genpareto.logsf(psi - 1.5, shape, scale=0.4))
    assert tail.psi(np.exp(tail.log_survival(psi))) == pytest.approx(psi)
    if shape < 0:
        assert np.isneginf(tail.log_survival(1.5 + 0.4 / 0.3 + 0.01))


def test_heads_drawn_by_gaps_are_the_largest_of_whole_samples() -> None:
    m, k = 60, 7
    drawn = unit_heads(m, k, np.random.default_rng(0), 4_000)
    whole = np.sort(np.random.default_rng(1).exponential(size=(4_000, m)), axis=1)[:, ::-1][:, : k + 1]
    assert (np.diff(drawn, axis=1) < 0).all()
    for column in (0, 3, k):
        assert kstest(drawn[:, column], whole[:, column]).pvalue > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_fits_move_and_stretch_with_the_data(method: Method) -> None:
    psi = PowerLaw().draw(500, np.random.default_rng(3))
    plain, moved = fit(psi, method, draws=50), fit(4 * psi + 7, method, draws=50)
    for n in (1e3, 1e6):
        assert moved.tail.psi(1 / n) == pytest.approx(4 * plain.tail.psi(1 / n) + 7)
        assert moved.draws.psi(1 / n) == pytest.approx(4 * plain.draws.psi(1 / n) + 7)


@pytest.mark.parametrize("method", STRAIGHT)
def test_ninety_percent_intervals_hold_the_truth_of_exact_tails_nine_times_in_ten(method: Method) -> None:
    truth, n, held = PowerLaw(alpha=3, c=50), 1e6, 0
    for seed in range(400):
        fitted = fit(truth.draw(300, np.random.default_rng([seed, 9])), method, seed=seed, draws=300)
        low, high = np.quantile(fitted.draws.psi(1 / n), [0.05, 0.95])
        held += bool(low <= -math.log(-truth.log_p(1 / n)) <= high)
    assert 0.85 <= held / 400 <= 0.95  # standard error .015


def test_zeros_below_the_tail_change_nothing_and_zeros_in_it_are_told() -> None:
    psi = np.sort(PowerLaw().draw(500, np.random.default_rng(0)))
    holed = psi.copy()
    holed[:440] = -np.inf
    assert fit(holed, draws=20).tail == fit(psi, draws=20).tail
    holed[:460] = -np.inf
    with pytest.raises(DataError, match="only 40 of 500 queries have a probability above 0"):
        fit(holed)


def test_too_few_and_all_the_same_are_errors() -> None:
    with pytest.raises(DataError, match="40 queries are too few"):
        fit(np.zeros(40))
    with pytest.raises(DataError, match="too few for a tail read off the 100 largest"):
        fit(np.arange(100.0), top=100)
    with pytest.raises(DataError, match="all the same"):
        fit(np.zeros(1_000))
