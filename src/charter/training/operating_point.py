"""One view's operating point: the mix of probe and screen, the probability scale, the threshold. All on the dev split.

Dev exchanges are scored as they will be served, token by token with running maxima, by both scorers in one pass (in bfloat16 where
the processor has it: see `Backbone.hurry`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from charter.errors import NoData
from charter.models.calibrate import ViewPolicy, calibrate, platt
from charter.models.cascade import PRIOR, Cascade, TurnScorer
from charter.models.trained import OperatingPoint
from charter.records import View
from charter.statistics import auroc
from charter.training.table import Table

MIXES = tuple(np.round(np.arange(0.3, 1.01, 0.1), 1).tolist())
"""Shares of the probe that are tried."""


def operating_point(
    cascade: Cascade, dev: Table, view: View, budget: float, near_miss_budget: float, progress: Callable[[str, int, int], None]
) -> OperatingPoint:
    """Choose the mix by dev AUROC, fit the probability scale, and calibrate the threshold to the budgets."""
    restricted = dev.labels[:, 0] > 0.5
    peaks = _peaks(cascade, dev, view, progress)
    mix = max(peaks, key=lambda share: auroc(restricted, peaks[share]))
    temperature, offset = platt(peaks[mix], restricted)
    probability = ViewPolicy(1.0, temperature, offset).probability(peaks[mix])
    slices: dict[str, list[float]] = {}
    for name, p, positive in zip(dev.slices, probability, restricted, strict=True):
        if not positive:
            slices.setdefault(name, []).append(float(p))
    if not slices:
        raise NoData("calibration needs harmless exchanges in the dev split")
    return OperatingPoint(mix, temperature, offset, calibrate(slices, budget, near_miss_budget, dev.ordinary))


def _peaks(cascade: Cascade, dev: Table, view: View, progress: Callable[[str, int, int], None]) -> dict[float, NDArray[np.float32]]:
    """Running maximum of the overall logit at the end of each dev exchange, for every mix: {share of the probe: [exchanges]}.

    Mixing is linear in the logits of the two scorers, so one pass that keeps them apart serves all mixes.
    """
    peaks = np.full((len(MIXES), len(dev.exchanges)), -np.inf, np.float32)
    shares = np.array(MIXES, np.float32)[:, None]
    order = sorted(range(len(dev.exchanges)), key=lambda row: sum(len(turn.content) for turn in dev.exchanges[row].turns))
    for number, (row, turns) in enumerate(zip(order, cascade.read([dev.exchanges[row] for row in order]), strict=True)):
        for turn_view, pieces, states in turns:
            if turn_view == view:
                probe, screen, share = TurnScorer(cascade, view).apart(pieces, states)
                z = PRIOR + share * (shares * probe[:, 0] + (1 - shares) * screen[:, 0] - PRIOR)
                peaks[:, row] = np.maximum(peaks[:, row], z.max(1))
        progress(f"calibration, {view} view", number + 1, len(order))
    return dict(zip(MIXES, peaks, strict=True))
