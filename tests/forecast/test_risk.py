"""Forecasts against brute force on tails whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from charter.errors import DataError
from charter.forecast.elicitation import log_probability, probability
from charter.forecast.risk import forecast, frequency, least, worst
from charter.forecast.tails import Fit, Tail, fit
from charter.forecast.validation import PowerLaw

TRUTH = PowerLaw(alpha=3, c=12)
RNG = np.random.default_rng


def exact(m: int = 2_000, top: int = 200) -> Fit:
    """A fit that is the truth, on a sample that is its quantiles."""
    values = -math.log(TRUTH.c) - np.log((np.arange(m) + 0.5) / m) / TRUTH.alpha
    tail = Tail(*(np.array(x) for x in (-math.log(TRUTH.c), 1.0, 1 / TRUTH.alpha, 0.0)))
    draws = Tail(*(np.full(3, x) for x in (-math.log(TRUTH.c), 1.0, 1 / TRUTH.alpha, 0.0)))
    return Fit("likelihood", m, top, tail, draws, values)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_asked_quantile_of_the_maximum_is_that_of_simulated_maxima(quantile: float) -> None:
    maxima = log_probability(TRUTH.draw(400 * 3_000, RNG(0)).reshape(3_000, 400).max(1))
    told = worst(exact(), 400, quantile).log_p.value
    assert told is not None
    assert np.mean(maxima <= told) == pytest.approx(quantile, abs=0.03)


def test_the_published_quantile_is_exceeded_by_most_maxima() -> None:
    assert worst(exact(), 1e5, math.exp(-1)).log_p.value == pytest.approx(TRUTH.log_p(1e-5), rel=1e-4)


def test_the_interval_of_the_maximum_holds_nine_of_ten_new_maxima() -> None:
    held, n = 0, 2_000
    for seed in range(300):
        found = worst(fit(TRUTH.draw(300, RNG([seed, 1])), seed=seed, draws=400), n, level=0.9, seed=seed)
        new = float(log_probability(TRUTH.draw(n, RNG([seed, 2])).max()))
        assert found.maximum.low is not None
        assert found.maximum.high is not None
        held += found.maximum.low <= new <= found.maximum.high
    assert 0.85 <= held / 300 <= 0.95  # standard error .017


@pytest.mark.parametrize("n", [100, 1_000, 20_000])
def test_aggregate_risks_are_those_of_simulated_runs(n: int) -> None:
    runs = min(2_000, 4_000_000 // n)
    p = probability(TRUTH.draw(n * runs, RNG(4)).reshape(runs, n))
    risks = -np.expm1(np.log1p(-p).sum(1))
    found = forecast(exact(), n)
    assert found.expected.value == pytest.approx(risks.mean(), rel=0.15)
    assert found.aggregate.value == pytest.approx(np.median(risks), rel=0.25)


def test_aggregate_risk_of_many_queries_is_summed_as_if_one_by_one() -> None:
    n = 50_000
    ranks = np.arange(1, n + 1)
    one_by_one = -math.expm1(float(np.log1p(-np.exp(-TRUTH.c * ((ranks - 0.3) / (n + 0.4)) ** (1 / TRUTH.alpha))).sum()))
    assert forecast(exact(), n).aggregate.value == pytest.approx(one_by_one, rel=0.02)


@given(st.floats(1e-3, 0.9))
def test_frequency_inverts_the_worst_query(p: float) -> None:
    at = frequency(exact(), p).value
    truth = (-math.log(p) / TRUTH.c) ** TRUTH.alpha
    assert at == pytest.approx(truth, rel=0.01 if p > 0.01 else 0.1)


def test_frequency_in_the_body_is_counted_with_its_exact_interval() -> None:
    fitted = fit(TRUTH.draw(1_000, RNG(0)))
    p = float(probability(fitted.values[300])) * 0.999
    expected = binomtest(301, 1_000).proportion_ci(0.95, method="exact")
    found = frequency(fitted, p)
    assert (found.value, found.low, found.high) == pytest.approx((0.301, expected.low, expected.high))


def test_risks_rise_with_n_and_intervals_hold_their_values() -> None:
    fitted = fit(TRUTH.draw(1_000, RNG(1)))
    found = [forecast(fitted, n) for n in (100, 1e4, 1e6, 1e9)]
    for figures in ([f.worst.log_p for f in found], [f.aggregate for f in found], [f.expected for f in found]):
        values = [i.value for i in figures if i.value is not None]
        assert values == sorted(values)
        assert len(values) == 4
        assert all(i.low is not None and i.high is not None and i.low <= v <= i.high for i, v in zip(figures, values, strict=True))
    assert all(f.worst.maximum.low <= f.worst.log_p.low for f in found)  # type: ignore[operator]


def test_n_within_the_sample_and_nonsense_are_errors() -> None:
    fitted = fit(TRUTH.draw(1_000, RNG(0)))
    worst(fitted, least(fitted))
    with pytest.raises(DataError, match="lies within the sample"):
        worst(fitted, least(fitted) - 1)
    for n, quantile in ((math.nan, 0.5), (math.inf, 0.5), (0, 0.5), (1e6, 0), (1e6, 1)):
        with pytest.raises(DataError, match="at least 1"):
            worst(fitted, n, quantile)
    with pytest.raises(DataError, match="between 0 and 1"):
        frequency(fitted, 1.0)
