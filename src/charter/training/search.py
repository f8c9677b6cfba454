"""Choose the probe's layers and penalty by the ranking of the prompt view's overall head on a fifth of the training parents.

The dev split stays untouched for the mix and the thresholds, and is run through the backbone once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from charter.records import split_place
from charter.statistics import auroc
from charter.training.activations import Windows
from charter.training.probe import fit_probe, loudest
from charter.training.table import Table

STRENGTHS = (1e-3, 3e-3, 1e-2)
"""C: in prototypes 3e-4 underfitted on a thousand to seven thousand exchanges."""
HELD_BACK = 0.2
STEPS = 25
"""Steps of L-BFGS in the search; the final fit takes more."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What won, and the AUROC on the held-back parents it won with."""

    layers: tuple[int, ...]
    strength: float
    auroc: float


def candidates(layers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Layer sets to try: the upper two thirds of those read, and a single one."""
    everything = tuple(layers)
    yield from dict.fromkeys((everything[round(len(everything) * 0.35) :], everything[len(everything) * 3 // 4 :][:1]))


def choose(windows: Windows, table: Table, layers: Sequence[int], progress: Callable[[str, int, int], None], fixed: bool = False) -> Choice:
    """The candidate with the highest AUROC on held-back parents; of equals the first.

    Only what synthesis wrote is looked at, so that every red-team round reads the same layers.

    Args:
        layers: those that the windows hold.
        fixed: take them all, and choose the penalty alone.
    """
    width = windows.store.shape[1] // len(layers)
    back = np.array([split_place(f"search:{parent}") < HELD_BACK for parent in table.parents])
    base = np.arange(len(back)) < table.base
    train, labels = windows.of(np.flatnonzero(base & ~back)), table.labels[base & ~back, :1]
    check, truth = windows.of(np.flatnonzero(base & back)), table.labels[base & back, 0] > 0.5
    tries = [(subset, strength) for subset in ([tuple(layers)] if fixed else candidates(layers)) for strength in STRENGTHS]
    found = []
    for number, (subset, strength) in enumerate(tries):
        columns = np.concatenate([np.arange(width) + list(layers).index(layer) * width for layer in subset])
        weights, bias = fit_probe(train, labels, strength, STEPS, columns)
        found.append(Choice(subset, strength, auroc(truth, loudest(check, len(truth), weights, bias, columns)[:, 0])))
        progress("layers and penalty", number + 1, len(tries))
    return max(found, key=lambda choice: choice.auroc)
