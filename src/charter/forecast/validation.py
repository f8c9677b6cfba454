"""How far forecasts miss: on tails whose truth is known, and on the user's own queries, a part forecasting the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from charter.errors import DataError
from charter.forecast.elicitation import log_probability, probability
from charter.forecast.risk import Worst, forecast, frequency, worst
from charter.forecast.tails import Fit, Method, fit

Floats = NDArray[np.float64]
LEAST = 100
"""Queries that the fitting part of a split holds at least."""


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """The tail that is exactly straight: P(-log p < x) = (x / c)^alpha on [0, c], so psi is exponential of scale 1 / alpha from -log c."""

    alpha: float = 8.0
    c: float = 30.0

    def draw(self, m: int, rng: Generator) -> Floats:
        """psi of m queries."""
        return -math.log(self.c) + rng.exponential(1 / self.alpha, m)

    def log_p(self, survival: float) -> float:
        """log of the probability that a share `survival` of the queries exceeds: -c S^(1/alpha)."""
        return -self.c * math.exp(math.log(survival) / self.alpha)


@dataclass(frozen=True, slots=True)
class Miss:
    """A forecast of log p (or of another logarithm) against what was seen."""

    error: float
    """Forecast less truth, in natural logarithms."""
    covered: bool
    """Whether the interval holds the truth."""


@dataclass(frozen=True, slots=True)
class Misses:
    """Errors of one figure over several forecasts."""

    n: int
    absolute: float
    """Mean absolute error in natural logarithms."""
    low: float
    high: float
    """5 % and 95 % quantile of the error itself."""
    within: float
    """Share within a factor of 10."""
    under: float
    """Share of underestimates."""
    covered: float
    """Share whose interval held the truth."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """Random parts of m queries, each forecasting the maximum, the frequency and the aggregate risk of the n others."""

    m: int
    n: int
    worst: Misses
    frequency: Misses
    aggregate: Misses


def synthetic(
    method: Method, m: int, n: float, seeds: Iterable[int], truth: PowerLaw | None = None, top: int | None = None, level: float = 0.9
) -> list[Miss]:
    """Forecasts of the median worst query on exact tails, a sample of m for each seed."""
    truth = truth or PowerLaw()
    log_p = truth.log_p(-math.expm1(math.log(0.5) / n))
    out = []
    for seed in seeds:
        psi = truth.draw(m, np.random.default_rng([seed, 7]))
        out.append(_miss(worst(fit(psi, method, top, seed), n, level=level, seed=seed), log_p))
    return out


def backtest(
    psi: Floats, method: Method = "likelihood", m: int | None = None, splits: int = 50, seed: int = 0, top: int | None = None
) -> Backtest:
    """Fit random parts of m queries (a tenth of them where None) and compare with the others. The splits share their queries: their
    spread tells how forecasts vary, not how well the mean error is known.

    Raises:
        DataError: there are too few queries to hold some back.
    """
    m = len(psi) // 10 if m is None else m
    n = len(psi) - m
    if m < LEAST or n < 2 * m:
        raise DataError(f"{len(psi):,} queries are too few to hold some back: it takes {10 * LEAST:,}")
    rng = np.random.default_rng([seed, 3])
    rows = []
    for number in range(splits):
        order = rng.permutation(len(psi))
        rows.append(_against(fit(psi[order[:m]], method, top, seed + number, draws=500), psi[order[m:]], seed + number))
    largest, often, together = zip(*rows, strict=True)
    return Backtest(m, n, summary(largest), summary([r for r in often if r]), summary(together))


def summary(found: Sequence[Miss]) -> Misses:
    """What the misses come to.

    Raises:
        DataError: there is none.
    """
    if not found:
        raise DataError("no forecast could be compared with anything: hold more queries back")
    error = np.array([f.error for f in found])
    low, high = np.quantile(error, [0.05, 0.95])
    within, covered = np.mean(np.abs(error) <= math.log(10)), np.mean([f.covered for f in found])
    return Misses(
        len(found), float(np.abs(error).mean()), float(low), float(high), float(within), float(np.mean(error < 0)), float(covered)
    )


def _against(fitted: Fit, rest: Floats, seed: int) -> tuple[Miss, Miss | None, Miss]:
    """Worst query against the largest of the rest; frequency at their tenth largest; aggregate risk against theirs."""
    found = forecast(fitted, len(rest), seed=seed)
    falling = np.sort(rest)[::-1]
    top, tenth = float(log_probability(falling[0])), float(probability(falling[9]))
    aggregate = -math.expm1(float(np.log1p(-probability(rest)).sum()))
    told = found.worst
    largest = Miss(_value(told.log_p.value) - top, _value(told.maximum.low) <= top <= _value(told.maximum.high))
    often = None
    if 0 < tenth < 1 and (rate := frequency(fitted, tenth)).value:
        often = Miss(math.log(rate.value / (10 / len(rest))), _value(rate.low) <= 10 / len(rest) <= _value(rate.high))
    all_ = found.aggregate
    together = Miss(math.log(max(_value(all_.value), 1e-300) / max(aggregate, 1e-300)), _value(all_.low) <= aggregate <= _value(all_.high))
    return largest, often, together


def _miss(found: Worst, log_p: float) -> Miss:
    i = found.log_p
    return Miss(_value(i.value) - log_p, _value(i.low) <= log_p <= _value(i.high))


def _value(x: float | None) -> float:
    assert x is not None
    return x
