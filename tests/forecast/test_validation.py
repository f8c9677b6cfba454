"""The validation itself: what is known to be right is found right, what is wrong is found wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charter.errors import DataError
from charter.forecast.validation import Miss, PowerLaw, backtest, summary, synthetic


def test_the_power_law_is_drawn_as_it_is_written() -> None:
    law = PowerLaw()
    psi = law.draw(200_000, np.random.default_rng(0))
    for survival in (0.5, 0.1, 0.01):
        assert np.mean(-np.exp(-psi) > law.log_p(survival)) == pytest.approx(survival, rel=0.05)
    assert math.exp(law.log_p(1e-3)) == pytest.approx(3.2e-6, rel=0.01)
    assert math.exp(law.log_p(1e-6)) == pytest.approx(4.82e-3, rel=0.01)


def test_the_likelihood_lands_within_one_order_a_hundred_times_further_out() -> None:
    found = summary(synthetic("likelihood", 1_000, 1e5, range(200)))
    assert found.n == 200
    assert found.within >= 0.95
    assert 0.85 <= found.covered <= 0.95
    paper = summary(synthetic("paper", 1_000, 1e5, range(60)))
    assert paper.absolute > 1.5 * found.absolute


def test_a_summary_counts_what_it_says() -> None:
    found = summary([Miss(math.log(20), False), Miss(-math.log(2), True), Miss(0.0, True), Miss(math.log(5), True)])
    assert (found.n, found.within, found.under, found.covered) == (4, 0.75, 0.25, 0.75)
    assert found.absolute == pytest.approx((math.log(20) + math.log(2) + math.log(5)) / 4)
    with pytest.raises(DataError):
        summary([])


def test_a_backtest_on_a_straight_tail_errs_little_and_its_intervals_hold() -> None:
    psi = PowerLaw(alpha=8, c=30).draw(20_000, np.random.default_rng(2))
    found = backtest(psi, m=2_000, splits=20)
    assert (found.m, found.n, found.worst.n) == (2_000, 18_000, 20)
    assert found.worst.covered >= 0.8
    assert found.worst.absolute < math.log(10)
    assert found.frequency.absolute < 1
    assert found.aggregate.absolute < math.log(10)


def test_a_backtest_finds_a_forecast_that_its_queries_mislead() -> None:
    rng = np.random.default_rng(0)
    bounded = -np.exp(-rng.uniform(0, 1, 5_000))  # psi ends at 1: a straight line runs past it
    assert backtest(-np.log(-bounded), splits=20).worst.under <= 0.1


def test_too_few_queries_are_an_error() -> None:
    with pytest.raises(DataError, match="it takes 1,000"):
        backtest(np.arange(900.0))
