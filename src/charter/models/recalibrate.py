"""A view's operating point from the dev split's scores alone, with a threshold of its own for any clause: no forward is needed.

A clause's head flags by itself from the clause's own threshold, which keeps the clause's own budget just as the overall threshold
keeps the guard's (`calibrate`), and the same share of the budget for near misses. The guard's budgets cover both: each threshold is the smallest at which
all that flags stays within them, the clauses' own chosen first, in their order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charter.errors import DataError
from charter.models.calibrate import ABOVE_ALL, Calibration, ViewPolicy, calibrate, platt
from charter.statistics import Interval, absent, clopper_pearson


@dataclass(frozen=True, slots=True)
class DevScores:
    """What one view's heads made of the dev split."""

    logits: NDArray[np.float32]
    """Running maxima at the end of each exchange [rows, heads]: overall, then by clause."""
    labels: NDArray[np.bool_]
    """[rows, heads]: restricted at all, then by clause."""
    names: tuple[str, ...]
    """Of the slices."""
    slice_of: NDArray[np.int32]
    """[rows]: place of each row's slice in `names`."""

    @property
    def restricted(self) -> NDArray[np.bool_]:
        return self.labels[:, 0]

    def harmless(self, scores: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Scores [rows] of the harmless rows by slice, empty slices left out."""
        found = {name: scores[(self.slice_of == n) & ~self.restricted] for n, name in enumerate(self.names)}
        return {name: values for name, values in found.items() if len(values)}


@dataclass(frozen=True, slots=True)
class OwnThreshold:
    """A clause's own threshold and the budget that it keeps."""

    budget: float
    calibration: Calibration


@dataclass(frozen=True, slots=True)
class Point:
    """A view's probability scale and thresholds."""

    temperature: float
    offset: float
    calibration: Calibration
    """Of the overall threshold; its evidence counts what a clause's own threshold flags as well."""
    own: dict[int, OwnThreshold]
    """By the clause's place among the clauses."""

    def policy(self, clauses: int) -> ViewPolicy:
        """The policy of a view with so many clauses."""
        own = tuple(self.own[n].calibration.threshold if n in self.own else ABOVE_ALL for n in range(clauses)) if self.own else ()
        return ViewPolicy(self.calibration.threshold, self.temperature, self.offset, own)


def point(
    dev: DevScores, budget: float, near_miss_budget: float, own: Mapping[int, float], ordinary: Collection[str] = (), alone: float = 1.0
) -> Point:
    """The probability scale by maximum likelihood, and the smallest thresholds that keep the budgets on every slice.

    Args:
        budget: share of ordinary traffic that may be refused, by whatever threshold.
        near_miss_budget: the same for near misses; see `calibrate`.
        own: a clause's place among the clauses to its own budget, a part of the guard's. One without a restricted row in this view is
            passed over: its head has learned nothing here.
        ordinary: slices that are ordinary traffic in spite of their names.
        alone: see `calibrate`.

    Raises:
        NoData: there is no harmless or no restricted row.
        DataError: the clauses' budgets are more than the guard's.
    """
    if sum(own.values()) > budget * (1 + 1e-9):
        raise DataError(
            f"the clauses' own budgets come to {sum(own.values()):.2%}, more than the guard's {budget:.2%}, which covers them too; "
            "lower the clauses' budgets or raise the guard's"
        )
    temperature, offset = platt(dev.logits[:, 0], dev.restricted)
    probability = ViewPolicy(1.0, temperature, offset).probability(dev.logits)
    found: dict[int, OwnThreshold] = {}
    taken = np.zeros(len(probability), bool)  # rows that some clause's own threshold flags, whatever the overall one is
    for clause, rate in sorted(own.items()):
        if dev.labels[:, 1 + clause].any():
            head = probability[:, 1 + clause]
            # An own budget too small to be certified is kept as observed, which may be more than the guard's bound allows.
            least = calibrate(dev.harmless(np.where(taken, ABOVE_ALL, head)), budget, near_miss_budget, ordinary, alone=alone).threshold
            own_threshold = calibrate(dev.harmless(head), rate, near_miss_budget * rate / budget, ordinary, least, alone)
            found[clause] = OwnThreshold(rate, own_threshold)
            taken |= head >= own_threshold.threshold
    calibration = calibrate(dev.harmless(np.where(taken, ABOVE_ALL, probability[:, 0])), budget, near_miss_budget, ordinary, alone=alone)
    return Point(temperature, offset, calibration, found)


def recall(dev: DevScores, policy: ViewPolicy, head: int = 0) -> Interval:
    """Share of the dev rows restricted by a head's label (0: at all) that a policy flags, with its exact interval."""
    flagged = policy.fires(policy.probability(dev.logits))[dev.labels[:, head]]
    return clopper_pearson(int(flagged.sum()), len(flagged)) if len(flagged) else absent(0)
