"""Thresholds that keep a promise: the share of harmless exchanges refused stays within the budget, with exact bounds.

The threshold is the smallest whose one-sided 95 % Clopper-Pearson bound on the false-positive rate meets the budget on every
slice of ordinary traffic. Slices too small to certify the budget even without an error are judged together, and so are the near
misses, against a budget of their own; where a group is too small as well, the observed rate must meet the budget, and the guard says
which rate it can certify instead.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charter.errors import NoData
from charter.statistics import certifiable, upper_bound

ABOVE_ALL = 2.0
"""Above every probability: the threshold of what never flags."""
NEAR_MISS = ("permitted:", "restricted:")
"""Slices of near misses: written to lie just across a restricted clause's line, and harmless replies to restricted prompts."""


@dataclass(frozen=True, slots=True)
class ViewPolicy:
    """How one view's logits become a verdict."""

    threshold: float
    """Calibrated probability from which a text is flagged."""
    temperature: float
    offset: float
    """p = sigmoid(z / temperature + offset), both fitted on the dev split (Platt 1999)."""
    clause_thresholds: tuple[float, ...] = ()
    """Probability from which each clause's head flags by itself, ABOVE_ALL where a clause has no threshold of its own. Empty: none has."""

    def fires(self, p: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether calibrated probabilities [..., heads] flag: the overall one, or a clause's by its own threshold; shape [...].

        What is no number does not pass.
        """
        over = ~(p[..., 0] < self.threshold)
        if self.clause_thresholds:
            over = over | ~(p[..., 1:] < np.array(self.clause_thresholds)).all(-1)
        return np.asarray(over)

    def probability(self, z: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probability of each logit, short of 1 so that a threshold above it is still a probability; same shape."""
        scaled = np.asarray(z, np.float64) / self.temperature + self.offset
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(scaled, -36.0, 36.0))))


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the threshold does to one group of harmless dev exchanges."""

    n: int
    flagged: int
    bound: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """An operating point and what it rests on."""

    threshold: float
    certified: bool
    sentence: str
    evidence: dict[str, Evidence]


def platt(logits: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Temperature T and offset b so that sigmoid(z / T + b) is a probability (Platt 1999), by maximum likelihood.

    Targets are Platt's (n + 1) / (n + 2) and 1 / (n + 2), so separable data keep a finite temperature.

    Raises:
        NoData: one of the classes is empty.
    """
    from scipy.optimize import minimize

    z, y = np.asarray(logits, float), np.asarray(labels, bool)
    if not y.any() or y.all():
        raise NoData("calibration needs harmless and restricted exchanges in the dev split")
    target = np.where(y, (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2))

    def loss(parameters: NDArray[np.float64]) -> float:
        logit = np.exp(parameters[0]) * z + parameters[1]
        return float(np.mean(np.logaddexp(0, logit) - target * logit))

    slope, offset = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-5, 5), (-50, 50)]).x
    return float(np.exp(-slope)), float(offset)


def calibrate(
    scores: Mapping[str, ArrayLike], budget: float, near_miss_budget: float, ordinary: Collection[str] = (), least: float = 0.0,
    alone: float = 1.0,
) -> Calibration:  # fmt: skip
    """The smallest threshold that keeps every slice within its budget.

    Args:
        scores: slice name to the highest probability of each of its harmless dev exchanges.
        budget: share of ordinary traffic that may be refused, on every slice.
        near_miss_budget: the same for the slices `permitted:<clause>` and `restricted:<clause>` together, which are written to be confusable.
        ordinary: slices that are ordinary traffic in spite of such a name: permitted clauses that are nobody's counterpart.
        least: the threshold is not lower than this, whatever the budgets allow.
        alone: a slice is judged by itself where it could certify this rate as well as the budget. A wide budget would else judge slices
            of thirty rows, whose bounds allow no flag at all, and end above a strict budget's threshold.

    Raises:
        NoData: there is no harmless exchange.
    """
    groups = _groups({name: np.asarray(s, float) for name, s in scores.items() if np.size(s)}, budget, near_miss_budget, ordinary, alone)
    if not groups:
        raise NoData("calibration needs harmless exchanges in the dev split")
    threshold = max(least, *(_smallest(s, rate) for s, rate in groups.values()))
    evidence = {name: _evidence(s, threshold) for name, (s, _) in groups.items()}
    short = {name: rate for name, (_, rate) in groups.items() if evidence[name].bound > rate}
    return Calibration(threshold, not short, _sentence(groups, evidence, short), evidence)


Group = tuple[NDArray[np.float64], float]


def _groups(
    scores: dict[str, NDArray[np.float64]], budget: float, near_miss_budget: float, ordinary: Collection[str], alone_at: float
) -> dict[str, Group]:
    near = {name: s for name, s in scores.items() if name.startswith(NEAR_MISS) and name not in ordinary}
    traffic = {name: s for name, s in scores.items() if name not in near}
    alone = {name: (s, budget) for name, s in traffic.items() if len(s) >= certifiable(min(budget, alone_at))}
    small = [s for name, s in traffic.items() if name not in alone]
    groups: dict[str, Group] = dict(alone)
    if small:
        groups["ordinary traffic (small slices together)"] = (np.concatenate(small), budget)
    if near:
        groups["near misses (all slices together)"] = (np.concatenate(list(near.values())), near_miss_budget)
    return groups


def _smallest(scores: NDArray[np.float64], rate: float) -> float:
    """Smallest threshold at which the group keeps the rate: by its bound where n suffices, else as observed."""
    n = len(scores)
    if n >= certifiable(rate):
        allowed = 0
        while upper_bound(allowed + 1, n) <= rate:
            allowed += 1
    else:
        allowed = int(np.floor(rate * n))
    highest = np.sort(scores)[::-1]
    return float(np.nextafter(highest[allowed], np.inf)) if allowed < n else 0.0


def _evidence(scores: NDArray[np.float64], threshold: float) -> Evidence:
    flagged = int(np.sum(scores >= threshold))
    return Evidence(len(scores), flagged, upper_bound(flagged, len(scores)))


def _sentence(groups: dict[str, Group], evidence: dict[str, Evidence], short: dict[str, float]) -> str:
    def certified(name: str) -> str:
        e = evidence[name]
        return f"{e.flagged} of {e.n:,} flagged, so at most {e.bound:.2%} with 95 % confidence"

    if not short:
        return (
            "The budget is certified: "
            + "; ".join(f"{name} (budget {rate:.2%}): {certified(name)}" for name, (_, rate) in groups.items())
            + "."
        )
    name, rate = max(short.items(), key=lambda item: evidence[item[0]].bound / item[1])
    return (
        f"The budget of {rate:.2%} can't be certified on {name}: {certified(name)} is what can be said. "
        f"It takes {certifiable(rate):,} harmless exchanges without an error to certify {rate:.2%}."
    )
