"""What a fitted tail says of n queries: the worst of them, how frequent bad ones are, and the risk of them all together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charter.errors import DataError
from charter.forecast.elicitation import log_probability, probability, psi_of
from charter.forecast.tails import Fit, Tail
from charter.statistics import LEVEL, Interval, clopper_pearson

Floats = NDArray[np.float64]
EXACT_RANKS = 200
"""Ranks of the worst queries that are summed one by one; the others by a trapezoid rule in their logarithm."""
AGGREGATE_DRAWS = 400
"""Draws of the tail behind the interval of an aggregate risk, which takes a sum for each."""
DEPTH = 50.0
"""e-folds below the tail's share at which the integral of an expectation ends: what lies beyond adds less than e^-50."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The worst of n queries."""

    log_p: Interval
    """Natural logarithm of its probability: the asked quantile of the maximum, and what is known of it."""
    maximum: Interval
    """The same value with the interval in which the worst of n new queries itself will lie: wider, for the maximum is a draw too."""


@dataclass(frozen=True, slots=True)
class Risk:
    """The forecast at n queries."""

    n: float
    worst: Worst
    aggregate: Interval
    """1 - prod (1 - p_i) of n queries at their median ranks: at least one success in a typical run that asks each once."""
    expected: Interval
    """The same averaged over runs, 1 - (1 - E p)^n: worse tails than a typical run meets count too, so it leans more on the fit."""


def forecast(fit: Fit, n: float, quantile: float = 0.5, level: float = LEVEL, seed: int = 0) -> Risk:
    """All risks at n queries.

    Raises:
        DataError: n is no count, or so small that the sample itself holds the answer.
    """
    found = worst(fit, n, quantile, level, seed)
    rng = np.random.default_rng([seed, 2])
    draws = Tail(*(part[:AGGREGATE_DRAWS] for part in (fit.draws.threshold, fit.draws.share, fit.draws.scale, fit.draws.shape)))
    typical = _typical(fit, fit.tail, n, np.zeros(()))
    spread = _typical(fit, draws, n, rng.standard_normal(draws.scale.shape))
    expected = _interval(_expected(fit, fit.tail, n), _expected(fit, draws, n), level, fit.m)
    return Risk(n, found, _interval(typical, spread, level, fit.m), expected)


def worst(fit: Fit, n: float, quantile: float = 0.5, level: float = LEVEL, seed: int = 0) -> Worst:
    """The worst of n queries alone.

    Raises:
        DataError: as `forecast`.
    """
    if not (math.isfinite(n) and n >= 1) or not 0 < quantile < 1:
        raise DataError(f"a forecast needs n of at least 1 and a quantile between 0 and 1, not {n:g} and {quantile:g}")
    survival = _survival(quantile, n)
    if survival > fit.share:
        raise DataError(
            f"n = {n:g} lies within the sample: {fit.m:,} queries and a tail of the {fit.top} largest forecast from about {least(fit):,} on"
        )
    rng = np.random.default_rng([seed, 1])
    new = fit.draws.psi(_survival(rng.uniform(size=fit.draws.scale.shape), n))
    at, drawn, fresh = (log_probability(psi) for psi in (fit.tail.psi(survival), fit.draws.psi(survival), new))
    return Worst(_interval(at, drawn, level, fit.m), _interval(at, fresh, level, fit.m))


def least(fit: Fit) -> int:
    """The smallest n, roughly, at which the median of the maximum lies in the fitted tail."""
    return math.ceil(math.log(2) / -math.log1p(-fit.share))


def frequency(fit: Fit, threshold: float, level: float = LEVEL) -> Interval:
    """Share of queries whose p exceeds `threshold`; counted, with an exact interval, where that lies in the body of the sample.

    Raises:
        DataError: the threshold is no probability strictly between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise DataError(f"a frequency needs a threshold between 0 and 1, not {threshold:g}")
    psi = psi_of(math.log(threshold))
    if psi < fit.values[fit.top]:
        return clopper_pearson(int((fit.values > psi).sum()), fit.m, level)
    cap = math.log(fit.share)  # lines of least squares may stand a little above the sample where the tail begins
    at, drawn = (np.exp(np.minimum(tail.log_survival(psi), cap)) for tail in (fit.tail, fit.draws))
    return _interval(at, drawn, level, fit.m)


def _survival(quantile: ArrayLike, n: float) -> Floats:
    """S with P(max of n <= psi(S)) = quantile: 1 - quantile^(1/n). The published Q_p(n), at S = 1/n, is the quantile of about e^-1."""
    return np.asarray(-np.expm1(np.log(quantile) / n), np.float64)


def _typical(fit: Fit, tail: Tail, n: float, noise: Floats) -> Floats:
    """1 - exp sum log(1 - p_i), the worst from the tail at median ranks (i - 0.3) / (n + 0.4), the others as the body of the sample.

    Args:
        noise: standard normal, shape of the tail: moves the body's mean by so many of its standard errors.
    """
    in_tail = n * fit.share
    ranks, weights = _ranks(in_tail)
    p = probability(_over(tail, (ranks - 0.3) / (n + 0.4)))
    with np.errstate(divide="ignore"):
        worst = (np.log1p(-p) * weights).sum(-1)
    body = np.log1p(-probability(fit.values[fit.top :]))
    mean = np.minimum(body.mean() + noise * body.std() / math.sqrt(len(body)), 0)
    return np.asarray(-np.expm1(worst + (n - in_tail) * mean), np.float64)


def _expected(fit: Fit, tail: Tail, n: float) -> Floats:
    """1 - (1 - E p)^n, E p from the body's mean and the tail's integral over log survival."""
    steps = np.linspace(0, DEPTH, 401)
    survival = fit.share * np.exp(-steps)
    in_tail = np.trapezoid(probability(_over(tail, survival)) * survival, steps, axis=-1)
    body = (1 - fit.share) * probability(fit.values[fit.top :]).mean()
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(n * np.log1p(-np.minimum(in_tail + body, 1.0))), np.float64)


def _ranks(count: float) -> tuple[Floats, Floats]:
    """Ranks 1 to `count` with weights: the first ones each, then geometric nodes."""
    exact = np.arange(1.0, min(math.floor(count + 0.5), EXACT_RANKS) + 1)
    if count <= EXACT_RANKS:
        return exact, np.ones(len(exact))
    nodes = np.geomspace(EXACT_RANKS + 0.5, count + 0.5, 201)
    gaps = np.diff(nodes)
    weights = np.concatenate([gaps, [0]]) / 2 + np.concatenate([[0], gaps]) / 2
    return np.concatenate([exact, nodes]), np.concatenate([np.ones(len(exact)), weights])


def _over(tail: Tail, survival: Floats) -> Floats:
    """psi at every survival for every tail: shape (..., len(survival))."""
    return Tail(*(part[..., None] for part in (tail.threshold, tail.share, tail.scale, tail.shape))).psi(survival)


def _interval(value: Floats, draws: Floats, level: float, m: int) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), m)
