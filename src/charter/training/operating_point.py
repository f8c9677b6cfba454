"""One view's operating point: the mix of probe and screen, the probability scale, the threshold. All on the dev split.

Dev exchanges are scored as they will be served, token by token with running maxima, by both scorers in one pass (in bfloat16 where
the processor has it: see `Backbone.hurry`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from charter.models.cascade import Cascade
from charter.models.recalibrate import point
from charter.models.trained import OperatingPoint
from charter.records import View
from charter.statistics import auroc
from charter.training.dev_scores import dev_scores, kept_peaks
from charter.training.table import Table

MIXES = tuple(np.round(np.arange(0.3, 1.01, 0.1), 1).tolist())
"""Shares of the probe that are tried."""


def operating_point(
    cascade: Cascade, dev: Table, view: View, budget: float, near_miss_budget: float, cache: Path, progress: Callable[[str, int, int], None]
) -> OperatingPoint:
    """Choose the mix by dev AUROC, fit the probability scale, and calibrate the threshold to the budgets.

    Args:
        cache: folder in which the dev split's scores are kept for the next run with the same scorers.
    """
    assert dev.view == view
    restricted = dev.labels[:, 0] > 0.5
    found = dict(zip(MIXES, kept_peaks(cascade, dev, MIXES, cache, progress), strict=True))
    mix = max(found, key=lambda share: auroc(restricted, found[share][:, 0]))
    scores = dev_scores(dev, found[mix], cascade.clauses)
    chosen = point(scores, budget, near_miss_budget, {}, dev.ordinary)
    return OperatingPoint(mix, chosen.temperature, chosen.offset, chosen.calibration, scores)
