"""One view's operating point: each stage's share, when it is asked, the probability scale, the threshold. All on the dev split.

Dev exchanges are scored as they will be served, token by token with running maxima, by all stages in one pass (in bfloat16 where
the processor has it: see `Backbone.hurry`). The stages are settled one after the other, and the threshold is that of the cascade
as it is served.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.models.cascade import Cascade
from charter.models.recalibrate import DevScores, Point, point, recall
from charter.models.stage import ALWAYS
from charter.models.trained import Gate, OperatingPoint
from charter.records import View
from charter.statistics import auroc
from charter.training.dev_scores import DevLogits
from charter.training.table import Table

MIXES = tuple(np.round(np.arange(0.3, 1.01, 0.1), 1).tolist())
"""Shares of a stage that are tried."""
WHOLES = tuple(np.round(np.arange(0.1, 0.91, 0.1), 1).tolist())
"""Shares of a sentence encoder that are tried."""
ESCALATED = tuple(np.geomspace(0.8, 0.001, 24).tolist())
"""Shares of ordinary dev exchanges at which an escalation threshold is tried."""
CLEAR = 1e-3
"""How far a threshold keeps from the score it is set by: streamed and batched scores differ by a tenth of that."""
LOSS = 0.01
"""Share of the dev recall that escalation may cost."""

Calibrated = Callable[[Sequence[Gate]], tuple[DevScores, Point]]
"""The dev scores under these gates, and the point that keeps the budgets on them."""


def operating_point(
    cascade: Cascade,
    dev: Table,
    view: View,
    budget: float,
    near_miss_budget: float,
    gated: Collection[int],
    cache: Path,
    progress: Callable[[str, int, int], None],
) -> OperatingPoint:
    """Choose each stage's share by dev AUROC and its escalation threshold by dev recall, and calibrate to the budgets.

    Args:
        gated: numbers of the stages that are asked only about what looks suspicious; the others read everything.
        cache: folder in which the dev split's logits are kept for the next run with the same scorers.
    """
    assert dev.view == view
    logits = DevLogits(cascade, dev, cache, progress)
    restricted = dev.labels[:, 0] > 0.5

    def calibrated(gates: Sequence[Gate], whole: float | None = None) -> tuple[DevScores, Point]:
        scores = logits.scores(gates, whole)
        return scores, point(scores, budget, near_miss_budget, {}, dev.ordinary)

    gates: list[Gate] = []
    for number in range(len(cascade.stages)):
        tries = [Gate(mix) for mix in MIXES]
        gate = max(tries, key=lambda gate: auroc(restricted, logits.peaks([*gates, gate], 1)[:, 0]))
        gates.append(_escalating(logits, gates, gate, calibrated) if number in gated else gate)
    whole = None
    if cascade.whole and view == "prompt":
        whole = max(WHOLES, key=lambda share: auroc(restricted, logits.peaks(gates, 1, share)[:, 0]))
    scores, chosen = calibrated(gates, whole)
    return OperatingPoint(tuple(gates), chosen.temperature, chosen.offset, chosen.calibration, scores, whole)


def tried(ordinary: NDArray[np.float32]) -> list[float]:
    """Escalation thresholds, the highest first: just above all of these peaks [exchanges], then just above their quantiles."""
    places = [1.0, *(1 - share for share in reversed(ESCALATED))]
    return [float(place) for place in np.quantile(ordinary.astype(np.float64), places) + CLEAR]


def _escalating(logits: DevLogits, before: Sequence[Gate], gate: Gate, calibrated: Calibrated) -> Gate:
    """The gate with the largest threshold tried at which the recall, recalibrated, falls by at most LOSS of itself."""
    heads = len(logits.clauses)

    def found(threshold: float) -> float:
        scores, at = calibrated([*before, Gate(gate.mix, threshold)])
        return recall(scores, at.policy(heads)).value or 0.0

    ordinary = logits.peaks(before, 1)[logits.ordinary, 0]
    full = found(ALWAYS)
    if not full or not len(ordinary):  # nothing by which to choose
        return gate
    for threshold in tried(ordinary):
        if found(threshold) >= (1 - LOSS) * full:
            return Gate(gate.mix, threshold, logits.read([*before, Gate(gate.mix, threshold)]))
    return gate
