"""How far an ensemble's members disagree about the dev split, at each exchange's loudest window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from charter.models.ensemble import disagreement, mean_logit
from charter.models.probe import Probe
from charter.records import View
from charter.statistics import Interval, absent, ratio
from charter.training.activations import Windows

CHUNK = 2_048


def spread(
    windows: Windows, labels: NDArray[np.float32], probe: Probe, view: View, columns: NDArray[np.int64], seed: int
) -> dict[str, Interval]:
    """The mean standard deviation of the serving members' probabilities, of harmless and of restricted exchanges.

    Args:
        windows: of the exchanges; more layers may be stored than the probe reads.
        labels: [exchanges, heads], the overall one first.
        columns: the probe's inputs among those stored.
        seed: of the interval's draws.
    """
    members, hidden = probe.ensemble[view].serving, probe.hidden.get(view)
    n = len(labels)
    highest, apart = np.full(n, -np.inf), np.zeros(n)
    for start in range(0, len(windows.owner), CHUNK):
        at = slice(start, start + CHUNK)
        inputs = windows.take(at, columns)
        z = members.logits(inputs)
        z = (z if hidden is None else z + hidden.logits(inputs))[..., 0]
        for owner, level, own in zip(windows.owner[at], mean_logit(z), disagreement(z), strict=True):
            if level > highest[owner]:
                highest[owner], apart[owner] = level, own
    restricted = labels[:, 0] > 0.5
    sides = {"harmless": ~restricted, "restricted": restricted}
    return {side: ratio(apart[rows], np.ones(rows.sum()), seed) if rows.any() else absent(0) for side, rows in sides.items()}
