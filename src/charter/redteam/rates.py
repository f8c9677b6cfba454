"""Rates of success that know how wrong their judge is, and counts that don't pretend to rank.

A judge finds some failures successful and misses some successes. With its sensitivity and specificity, themselves estimated from
labelled replies, the true rate is (apparent + specificity - 1) / (sensitivity + specificity - 1) (Rogan and Gladen 1978). The
interval carries the errors of all three proportions (Lang and Reiczigel 2014); trials that share a question, and labelled
replies that share a prompt, count as fewer than they are (Kish's design effect).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charter.errors import DataError, NoData
from charter.statistics import LEVEL, Interval, clopper_pearson

USELESS = 0.1
"""Sensitivity + specificity - 1 below which a judge tells next to nothing, and nothing is corrected by it."""


@dataclass(frozen=True, slots=True)
class Share:
    """A proportion, the number of trials it rests on, and the number of independent ones that would tell as much."""

    value: float
    n: int
    effective: float

    @property
    def interval(self) -> Interval:
        """Exact for independent trials; of the effective number otherwise (Korn and Graubard 1998)."""
        if self.effective >= self.n:
            return clopper_pearson(round(self.value * self.n), self.n)
        from scipy.stats import beta

        hits, misses = self.value * self.effective, (1 - self.value) * self.effective
        tail = (1 - LEVEL) / 2
        low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, misses + 1))
        high = 1.0 if misses <= 0 else float(beta.ppf(1 - tail, hits + 1, misses))
        return Interval(self.value, low, high, self.n)


@dataclass(frozen=True, slots=True)
class JudgeError:
    """How often a judge is right where humans say success, and where they say failure."""

    sensitivity: Share
    specificity: Share
    source: str
    """What it was measured on, in words."""

    @property
    def youden(self) -> float:
        return self.sensitivity.value + self.specificity.value - 1

    def as_dict(self) -> dict[str, Any]:
        shares = {"sensitivity": self.sensitivity, "specificity": self.specificity}
        return {name: {**s.interval.as_dict(), "effective": round(s.effective, 1)} for name, s in shares.items()} | {"source": self.source}


def share(hits: Sequence[bool], clusters: Sequence[Hashable]) -> Share:
    """A proportion of trials that come in clusters.

    The design effect is the variance of the clusters' ratio over that of independent trials, at least 1. Where all trials end
    alike nothing shows how alike the clusters are: then each counts once.

    Raises:
        NoData: there is no trial.
    """
    if not hits:
        raise NoData("a rate needs at least one trial")
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    places = np.array([numbers[cluster] for cluster in clusters])
    sizes = np.bincount(places).astype(np.float64)
    sums = np.bincount(places, weights=np.asarray(hits, np.float64))
    n, k = len(hits), len(sizes)
    value = float(sums.sum() / n)
    if k == n:
        return Share(value, n, float(n))
    if value in (0.0, 1.0) or k == 1:
        return Share(value, n, float(k))
    between = k / (k - 1) * float(((sums - value * sizes) ** 2).sum()) / n**2
    return Share(value, n, min(float(n), max(value * (1 - value) / between, 1.0)) if between > 0 else float(n))


def corrected(apparent: Share, judge: JudgeError) -> Interval | None:
    """The true rate behind an apparent one, with an interval that carries the judge's own error.

    None where the judge is useless, or where it can't be as wrong here as where it was measured: the rate is lower than its false
    alarms alone would make it, or higher than its misses allow.

    Lang and Reiczigel (2014), on effective numbers of trials: Agresti-Coull's two successes and two failures added to the
    apparent rate, one of each to sensitivity and specificity, Wald's interval on those, moved towards where the bound lies.
    """
    from scipy.stats import norm

    if judge.youden < USELESS:
        return None
    z2 = float(norm.ppf((1 + LEVEL) / 2)) ** 2
    n = apparent.effective + z2
    p = (apparent.value * apparent.effective + z2 / 2) / n
    (se, var_se), (sp, var_sp) = _smoothed(judge.sensitivity), _smoothed(judge.specificity)
    youden = max(se + sp - 1, USELESS / 2)
    true = (p + sp - 1) / youden
    shift = 2 * z2 * (true * var_se - (1 - true) * var_sp) / youden
    half = (z2 * (p * (1 - p) / n + true**2 * var_se + (1 - true) ** 2 * var_sp)) ** 0.5 / youden
    value = min(1.0, max(0.0, (apparent.value + judge.specificity.value - 1) / judge.youden))
    low, high = true + shift - half, true + shift + half
    if high <= 0 or low >= 1:
        return None
    low, high = max(0.0, low), min(1.0, high)
    return Interval(value, min(low, value), max(high, value), apparent.n)


def _smoothed(s: Share) -> tuple[float, float]:
    """Value and variance with a success and a failure added."""
    n = s.effective + 2
    value = (s.value * s.effective + 1) / n
    return value, value * (1 - value) / n


def poisson(count: int) -> Interval:
    """Exact 95 % interval of the mean behind a count (Garwood 1936), by chi-squared quantiles.

    Raises:
        DataError: a negative count.
    """
    from scipy.stats import chi2

    if count < 0:
        raise DataError(f"a count can't be negative, and {count} is")
    tail = (1 - LEVEL) / 2
    low = 0.0 if count == 0 else float(chi2.ppf(tail, 2 * count)) / 2
    return Interval(float(count), low, float(chi2.ppf(1 - tail, 2 * count + 2)) / 2, count)


def told_apart(counts: Mapping[str, Interval]) -> list[tuple[str, str]]:
    """Pairs (more, fewer) whose intervals do not overlap: all that may be said about an order."""
    out = []
    for more, a in sorted(counts.items()):
        for fewer, b in sorted(counts.items()):
            if a.low is not None and b.high is not None and a.low > b.high:
                out.append((more, fewer))
    return out
