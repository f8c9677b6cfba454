"""Intervals and ranking figures, each with its n. No data is an error; every estimate that draws takes a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charter.errors import NoData

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval and the number of items it rests on."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, float | int | None]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def absent(n: int) -> Interval:
    """The figure that can't be given: the set has no negatives, or no positives."""
    return Interval(None, None, None, n)


def clopper_pearson(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Exact two-sided interval of a proportion (Clopper and Pearson 1934), by beta quantiles.

    Raises:
        NoData: n is 0.
    """
    from scipy.stats import beta

    if n < 1:
        raise NoData("a proportion needs at least one trial")
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(1 - tail, hits + 1, n - hits))
    return Interval(hits / n, low, high, n)


def clustered_proportion(hits: ArrayLike, groups: ArrayLike, level: float = LEVEL) -> Interval:
    """Two-sided interval of the share of hits among items that come in clusters (Korn and Graubard 1998).

    The exact interval at the effective sample size: n / design effect, shrunk by the squared ratio of Student's quantiles for n - 1 and
    clusters - 1 degrees of freedom, at most n. Where all items agree no design effect can be seen: each cluster counts once. With every
    item its own cluster it is Clopper and Pearson's.

    Args:
        hits: bool [items].
        groups: a number for each item's cluster.

    Raises:
        NoData: there is no item.
    """
    from scipy.stats import beta, t

    found = np.asarray(hits, bool)
    n = len(found)
    if n < 1:
        raise NoData("a proportion needs at least one trial")
    _, own = np.unique(np.asarray(groups), return_inverse=True)
    sizes, k = np.bincount(own), int(own.max()) + 1
    if k == n:
        return clopper_pearson(int(found.sum()), n, level)
    share = float(found.mean())
    residuals = np.bincount(own, found) - share * sizes
    variance = k / (k - 1) * float(residuals @ residuals) / n**2 if k > 1 else 0.0
    tail = (1 - level) / 2
    if variance > 0:
        effective = min(n, share * (1 - share) / variance * (float(t.ppf(tail, n - 1)) / float(t.ppf(tail, k - 1))) ** 2)
    else:
        effective = float(k)
    x = share * effective
    low = 0.0 if share == 0 else float(beta.ppf(tail, x, effective - x + 1))
    high = 1.0 if share == 1 else float(beta.ppf(1 - tail, x + 1, effective - x))
    return Interval(share, low, high, n)


def upper_bound(hits: int, n: int, level: float = LEVEL) -> float:
    """One-sided Clopper-Pearson upper bound of a rate: with no hit in n, 1 - (1 - level) ** (1 / n).

    Raises:
        NoData: n is 0.
    """
    from scipy.stats import beta

    if n < 1:
        raise NoData("a rate needs at least one trial")
    return 1.0 if hits >= n else float(beta.ppf(level, hits + 1, n - hits))


def certifiable(budget: float, level: float = LEVEL) -> int:
    """How many harmless items without one error it takes to certify a rate of `budget`: 2,995 for 0.1 %."""
    return int(np.ceil(np.log(1 - level) / np.log1p(-budget)))


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve by ranks (Mann-Whitney U), ties counted half.

    Raises:
        NoData: one of the classes is empty.
    """
    from scipy.stats import rankdata

    y, s = _two_classes(labels, scores)
    positives = int(y.sum())
    ranks = rankdata(s)
    return float((ranks[y].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the precision-recall curve as a step function: sum of (R_i - R_(i-1)) P_i over distinct scores.

    Raises:
        NoData: one of the classes is empty.
    """
    y, s = _two_classes(labels, scores)
    order = np.argsort(-s, kind="stable")
    last_of_tie = np.append(np.diff(s[order]) != 0, True)
    hits = np.cumsum(y[order])[last_of_tie]
    ranks = (np.arange(len(y)) + 1)[last_of_tie]
    return float(np.sum(np.diff(hits / y.sum(), prepend=0.0) * hits / ranks))


def f1(labels: ArrayLike, flagged: ArrayLike) -> float:
    """2 TP / (2 TP + FP + FN); 0 where nothing was found."""
    y, f = np.asarray(labels, bool), np.asarray(flagged, bool)
    found, wrong = int((y & f).sum()), int((y ^ f).sum())
    return 2 * found / (2 * found + wrong) if found else 0.0


def recall_at_fpr(labels: ArrayLike, scores: ArrayLike, rate: float) -> float:
    """Share of positives above the smallest threshold that at most `rate` of the negatives exceed.

    Raises:
        NoData: one of the classes is empty.
    """
    y, s = _two_classes(labels, scores)
    negatives = np.sort(s[~y])[::-1]
    allowed = int(np.floor(rate * len(negatives) + 1e-9))
    threshold = negatives[allowed] if allowed < len(negatives) else -np.inf
    return float(np.mean(s[y] > threshold))


def bootstrap(
    figure: Callable[[NDArray[np.bool_], NDArray[np.float64]], float],
    labels: ArrayLike,
    scores: ArrayLike,
    seed: int,
    draws: int = 500,
    groups: ArrayLike | None = None,
) -> Interval:
    """Percentile interval of a figure of (labels, scores), resampled within each class so that neither can vanish.

    Args:
        scores: [items], or [items, k] for a figure of several scores of the same items, such as a difference.
        groups: a number for each item; those of one group (a prompt and what was made from it) are drawn together, within groups
            that hold positives, negatives, or both.

    Raises:
        NoData: one of the classes is empty.
    """
    y, s = _two_classes(labels, scores)
    rng = np.random.default_rng(seed)
    items = _Groups(y, np.arange(len(y)) if groups is None else np.asarray(groups))
    samples = []
    for _ in range(draws):
        rows = items.draw(rng)
        samples.append(figure(y[rows], s[rows]))
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(figure(y, s)), float(low), float(high), len(y))


def ratio(parts: ArrayLike, wholes: ArrayLike, seed: int, draws: int = 500) -> Interval:
    """sum(parts) / sum(wholes) with its percentile interval over resampled items; n is the number of items.

    Raises:
        NoData: there is no item, or the wholes are nothing.
    """
    a, b = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    if not len(a) or not b.sum():
        raise NoData("a ratio needs at least one item")
    picked = np.random.default_rng(seed).integers(0, len(a), (draws, len(a)))
    samples = a[picked].sum(1) / np.maximum(b[picked].sum(1), np.finfo(float).tiny)
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(a.sum() / b.sum()), float(low), float(high), len(a))


class _Groups:
    """Items by group, and the groups by what they hold: positives, both, negatives."""

    def __init__(self, y: NDArray[np.bool_], groups: NDArray[np.int64]) -> None:
        self._items = np.argsort(groups, kind="stable")
        self._starts = np.flatnonzero(np.diff(groups[self._items], prepend=groups.min() - 1))
        self._sizes = np.diff(np.append(self._starts, len(y)))
        share = np.add.reduceat(y[self._items].astype(np.int64), self._starts) / self._sizes
        self._strata = [own for own in map(np.flatnonzero, (share == 1, (share > 0) & (share < 1), share == 0)) if len(own)]

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Items of groups drawn with replacement, as many of each kind as there are: both classes are always there."""
        drawn = np.concatenate([rng.choice(own, len(own)) for own in self._strata])
        sizes = self._sizes[drawn]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.asarray(self._items[np.repeat(self._starts[drawn], sizes) + within])


def _two_classes(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    y, s = np.asarray(labels, bool), np.asarray(scores, np.float64)
    if not y.any() or y.all():
        raise NoData("ranking figures need at least one positive and one negative")
    return y, s
