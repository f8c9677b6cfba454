"""One view's operating point: each stage's share, when it is asked, the probability scale, the threshold. All on the dev split.

Dev exchanges are scored as they will be served, token by token with running maxima, by all stages in one pass (in bfloat16 where
the processor has it: see `Backbone.hurry`). The stages are settled one after the other, and the threshold is that of the cascade
as it is served.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.models.cascade import Cascade
from charter.models.recalibrate import DevScores, Point, point, recall
from charter.models.stage import ALWAYS
from charter.models.trained import Gate, Listening, OperatingPoint
from charter.records import View
from charter.statistics import auroc
from charter.training.dev_scores import DevLogits
from charter.training.table import Table

MIXES = tuple(np.round(np.arange(0.3, 1.01, 0.1), 1).tolist())
"""Shares of a stage that are tried."""
EARNED = 1e-3
"""Dev AUROC that the screen must add to the logit, and to the first impression: its weights are 3 MB of a shipped guard, and a view in which it
is silent keeps none."""
WHOLES = tuple(np.round(np.arange(0.1, 0.91, 0.1), 1).tolist())
"""Shares of a sentence encoder that are tried."""
ESCALATED = tuple(np.geomspace(0.8, 0.001, 24).tolist())
"""Shares of ordinary dev exchanges at which an escalation threshold is tried."""
CLEAR = 1e-3
"""How far a threshold keeps from the score it is set by: streamed and batched scores differ by a tenth of that."""
LOSS = 0.01
"""Share of the dev recall that escalation may cost."""

Calibrated = Callable[[Sequence[Gate], Listening | None], tuple[DevScores, Point]]
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

    def calibrated(gates: Sequence[Gate], whole: Listening | None = None) -> tuple[DevScores, Point]:
        scores = logits.scores(gates, whole)
        return scores, point(scores, budget, near_miss_budget, {}, dev.ordinary)

    def ranked(peaks: NDArray[np.float32]) -> float:
        return auroc(restricted, peaks)

    gates: list[Gate] = []
    whole: Listening | None = None
    for number in range(len(cascade.stages)):
        found = {share: ranked(logits.peaks([*gates, Gate(share)], 1)[:, 0]) for share in MIXES}
        gate = _share(found, EARNED if number == 0 else 0.0)
        if number == 0 and cascade.whole and view == "prompt":
            gate, whole = _together(logits, gate, ranked)
            whole = _heard(logits, gate, whole, calibrated) if number in gated else whole
        gates.append(_escalating(logits, gates, gate, whole, calibrated) if number in gated else gate)
    scores, chosen = calibrated(gates, whole)
    return OperatingPoint(tuple(gates), chosen.temperature, chosen.offset, chosen.calibration, scores, whole)


def _share(found: Mapping[float, float], earned: float) -> Gate:
    """The share of the highest dev AUROC; all, where less adds no more than `earned`.

    Args:
        found: dev AUROC by share.
    """
    best = max(found, key=found.__getitem__)
    return Gate(1.0 if found[1.0] >= found[best] - earned else best)


def _together(logits: DevLogits, gate: Gate, ranked: Callable[[NDArray[np.float32]], float]) -> tuple[Gate, Listening]:
    """The probe's share and the sentence encoder's; the screen loses its part again where it adds nothing to both."""
    if gate.mix == 1:
        return gate, _listening(logits, gate, ranked)
    tries = [(own, _listening(logits, own, ranked)) for own in (gate, Gate(1.0))]
    both, without = (ranked(logits.peaks([own], 1, whole)[:, 0]) for own, whole in tries)
    return tries[1] if without >= both - EARNED else tries[0]


def _listening(logits: DevLogits, gate: Gate, ranked: Callable[[NDArray[np.float32]], float]) -> Listening:
    """The sentence encoder's shares by dev AUROC: of the logit beside screen and probe, and of the first impression beside the screen."""
    mix = max(WHOLES, key=lambda share: ranked(logits.peaks([gate], 1, Listening(share))[:, 0]))
    lead = _share({share: ranked(logits.impressions(Listening(mix, share))) for share in (*WHOLES, 1.0)}, EARNED)
    return Listening(mix, lead.mix)


def tried(ordinary: NDArray[np.float32]) -> list[float]:
    """Escalation thresholds, the highest first: just above all of these peaks [exchanges], then just above their quantiles."""
    places = [1.0, *(1 - share for share in reversed(ESCALATED))]
    return [float(place) for place in np.quantile(ordinary.astype(np.float64), places) + CLEAR]


def _heard(logits: DevLogits, gate: Gate, whole: Listening, calibrated: Calibrated) -> Listening:
    """The sentence encoder asked from the largest first glance at which the recall falls by at most LOSS of itself."""
    chosen = _largest(logits.glances()[logits.ordinary], lambda at: calibrated([gate], replace(whole, threshold=at)), len(logits.clauses))
    if chosen == ALWAYS:
        return whole
    whole = replace(whole, threshold=chosen)
    return replace(whole, read=logits.heard(whole))


def _escalating(logits: DevLogits, before: Sequence[Gate], gate: Gate, whole: Listening | None, calibrated: Calibrated) -> Gate:
    """The gate with the largest threshold tried at which the recall, recalibrated, falls by at most LOSS of itself."""
    own = logits.impressions(whole) if whole and not before else logits.peaks(before, 1)[:, 0]
    chosen = _largest(own[logits.ordinary], lambda at: calibrated([*before, Gate(gate.mix, at)], whole), len(logits.clauses))
    gate = Gate(gate.mix, chosen)
    return gate if chosen == ALWAYS else replace(gate, read=logits.read([*before, gate], whole))


def _largest(ordinary: NDArray[np.float32], calibrated: Callable[[float], tuple[DevScores, Point]], heads: int) -> float:
    """The largest threshold tried that keeps the recall; ALWAYS where none does, or there is nothing by which to choose.

    Args:
        ordinary: what the threshold is held against, of ordinary dev exchanges.
        calibrated: the dev scores at a threshold, and the point that keeps the budgets on them.
    """

    def found(threshold: float) -> float:
        scores, at = calibrated(threshold)
        return recall(scores, at.policy(heads)).value or 0.0

    full = found(ALWAYS)
    if not full or not len(ordinary):
        return ALWAYS
    return next((threshold for threshold in tried(ordinary) if found(threshold) >= (1 - LOSS) * full), ALWAYS)
