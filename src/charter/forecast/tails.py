"""Tails of psi fitted to the top of a sample, with draws that carry the fit's uncertainty.

Where a distribution's tail is regular in the sense of extreme-value theory, log survival is about linear in psi (Jones et al. 2025):
log S(psi) = a psi + b. Here that line is kept as S = share * exp(-(psi - threshold) / scale), scale = -1/a, and the generalised
Pareto tail, which may bend, as its extension with a shape.

    paper        least squares of log(j / m) on the 10 largest psi_(j), as published
    half-rank    the same on log((j - 1/2) / m): its extrapolation is nearly unbiased where the tail is exact
    likelihood   exponential excesses over the (k+1)-th largest psi (Hill 1975): the maximum of the likelihood, the least spread
    gpd          generalised Pareto excesses by probability-weighted moments (Hosking and Wallis 1987): the baseline that may bend

The first three move and stretch with the data, so (truth - fit) / fitted scale has one distribution for all straight tails: refitting
samples of the unit exponential gives it, and intervals from it are exact there at every m and k (a parametric bootstrap of a pivot).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from charter.errors import DataError

Floats = NDArray[np.float64]
Method = Literal["paper", "half-rank", "likelihood", "gpd"]
TOP: dict[Method, int] = {"paper": 10, "half-rank": 10, "likelihood": 50, "gpd": 100}
"""How many of the largest values a fit reads where nothing is asked; a tenth of the sample at most."""
MIN_TOP = 5
DRAWS = 2_000


@dataclass(frozen=True, slots=True)
class Tail:
    """Survival S(psi) above a threshold; the fields have one shape, () for a fit and (draws,) for its uncertainty."""

    threshold: Floats
    share: Floats
    """Survival at the threshold."""
    scale: Floats
    shape: Floats
    """0: exponential; below 0 psi has an upper end."""

    def psi(self, survival: ArrayLike) -> Floats:
        """The value that is exceeded with probability `survival`; broadcasts."""
        return self.threshold + self.scale * _excess(np.log(self.share) - np.log(survival), self.shape)

    def log_survival(self, psi: ArrayLike) -> Floats:
        """Logarithm of P(a query's psi exceeds `psi`); minus infinity beyond the end of a bounded tail."""
        above = (np.asarray(psi, np.float64) - self.threshold) / self.scale
        with np.errstate(divide="ignore", invalid="ignore"):
            bent = np.log(np.maximum(1 + self.shape * above, 0)) / self.shape
        return np.asarray(np.log(self.share) - np.where(self.shape == 0, above, bent), np.float64)


@dataclass(frozen=True, slots=True)
class Fit:
    """A tail, what it was fitted to, and draws of it."""

    method: Method
    m: int
    top: int
    """How many of the largest values it reads."""
    tail: Tail
    draws: Tail
    values: Floats
    """All psi, falling."""

    @property
    def share(self) -> float:
        """Survival from which on the tail speaks; above it the sample itself does."""
        return self.top / self.m


def fit(psi: Floats, method: Method = "likelihood", top: int | None = None, seed: int = 0, draws: int = DRAWS) -> Fit:
    """Fit the tail of psi, shape (m,).

    Raises:
        DataError: there are too few queries, or zeros or ties reach into the tail.
    """
    m = len(psi)
    k = min(TOP[method], m // 10) if top is None else top
    if k < MIN_TOP or k >= m:
        asked = f"the {k} largest of them" if top is not None else f"a tenth of them, at least {MIN_TOP}"
        raise DataError(f"{m:,} queries are too few for a tail read off {asked}: sample more queries, 1,000 or so")
    values = np.sort(psi)[::-1]
    head = values[: k + 1]
    if np.isneginf(head[-1]):
        positive = int(np.isfinite(values).sum())
        raise DataError(
            f"only {positive:,} of {m:,} queries have a probability above 0, and a tail of {k} needs {k + 1}: "
            f"sample each query more often, use log-probabilities, or read a shorter tail (--top)"
        )
    if head[0] - head[-1] <= 1e-9 * max(1.0, abs(head[0])):
        raise DataError(f"the {k + 1} largest probabilities are all the same: a tail needs spread, so read more of them (--top)")
    tail = estimate(head, m, method)
    rng = np.random.default_rng(seed)
    return Fit(method, m, k, tail, _refit(tail, m, k, method, rng, draws), values)


def estimate(head: Floats, m: int, method: Method) -> Tail:
    """The tail of the k + 1 largest of m values, falling along the last axis: shape (..., k + 1)."""
    k = head.shape[-1] - 1
    if method in ("paper", "half-rank"):
        ranks = np.arange(1, k + 1) - (0.5 if method == "half-rank" else 0.0)
        return _line(head[..., :k], np.log(ranks / m))
    threshold, excesses = head[..., k], head[..., :k] - head[..., k:]
    share = np.full(threshold.shape, k / m)
    if method == "likelihood":
        return Tail(threshold, share, excesses.mean(-1), np.zeros(threshold.shape))
    shape, scale = moments(excesses)
    return Tail(threshold, share, scale, shape)


def moments(excesses: Floats) -> tuple[Floats, Floats]:
    """Shape and scale of generalised Pareto excesses, falling along the last axis, by probability-weighted moments.

    Hosking and Wallis 1987: with a0 = E[X] and a1 = E[X (1 - F(X))], shape = 2 - a0 / (a0 - 2 a1), scale = 2 a0 a1 / (a0 - 2 a1).
    """
    k = excesses.shape[-1]
    a0, a1 = excesses.mean(-1), (excesses * np.arange(k) / (k - 1)).mean(-1)
    return 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)


def unit_heads(m: int, k: int, rng: Generator, draws: int) -> Floats:
    """The k + 1 largest of m unit exponentials, falling: shape (draws, k + 1).

    By Rényi's representation: the smallest of them is -log of a Beta(k + 1, m - k), and the gap below the j-th is exponential over j.
    """
    lowest = -np.log(rng.beta(k + 1, m - k, size=(draws, 1)))
    gaps = rng.exponential(size=(draws, k)) / np.arange(1, k + 1)
    return np.concatenate([lowest + np.cumsum(gaps[:, ::-1], axis=1)[:, ::-1], lowest], axis=1)


def _line(y: Floats, log_rank: Floats) -> Tail:
    """Least squares of log rank on y along the last axis: log S = a y + b, kept as threshold -b/a, share 1, scale -1/a."""
    centred = y - y.mean(-1, keepdims=True)
    a = (centred * log_rank).sum(-1) / (centred**2).sum(-1)
    b = log_rank.mean() - a * y.mean(-1)
    return Tail(-b / a, np.ones(a.shape), -1 / a, np.zeros(a.shape))


def _refit(tail: Tail, m: int, k: int, method: Method, rng: Generator, draws: int) -> Tail:
    """Tails as far from `tail` as fits lie from the truth."""
    unit = unit_heads(m, k, rng, draws)
    if method == "gpd":  # no pivot: fits of samples of the fitted tail
        return estimate(tail.psi(np.exp(-unit)), m, method)
    again = estimate(unit, m, method)
    scale = tail.scale / again.scale
    # The unit exponential's line has threshold 0 and share 1; `origin` is where a line reaches survival 1.
    origin, unit_origin = (t.threshold + t.scale * np.log(t.share) for t in (tail, again))
    return Tail(origin - scale * unit_origin, np.ones(draws), scale, np.zeros(draws))


def _excess(t: Floats, shape: Floats) -> Floats:
    """(e^(shape t) - 1) / shape, and t where shape is 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.where(shape == 0, t, np.expm1(shape * t) / shape), np.float64)
