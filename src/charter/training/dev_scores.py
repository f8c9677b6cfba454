"""What a view's heads make of the dev split: running maxima, as serving sees them, for one mix of probe and screen or for several.

Mixing is linear in the logits of the two scorers, so one pass that keeps them apart serves all mixes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.models.cascade import PRIOR, Cascade, TurnScorer
from charter.models.recalibrate import DevScores
from charter.records import View
from charter.training.table import Table, tables, training_rows

Progress = Callable[[str, int, int], None]


def kept_peaks(cascade: Cascade, dev: Table, mixes: Sequence[float], folder: Path, progress: Progress) -> NDArray[np.float32]:
    """`peaks`, read from the folder where the same scorers have met the same exchanges before: half of a build that changed nothing."""
    file = folder / f"peaks-{_digest(cascade, dev, mixes)}.npy"
    shape = len(mixes), len(dev.exchanges), 1 + len(cascade.clauses)
    try:
        found: NDArray[np.float32] = np.load(file, allow_pickle=False)
        if found.shape == shape and found.dtype == np.float32:
            return found
    except (OSError, ValueError, EOFError):
        pass  # none yet, or damaged: it is made anew
    found = peaks(cascade, dev, mixes, progress)
    folder.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f"{file.name}.{os.getpid()}.part")
    with aside.open("wb") as out:
        np.save(out, found)
    os.replace(aside, file)
    return found


def _digest(cascade: Cascade, dev: Table, mixes: Sequence[float]) -> str:
    """Tells all that the peaks depend on: 16 hex digits."""
    view, backbone = dev.view, cascade.backbone
    sha = hashlib.sha256(repr((view, backbone.fingerprint, backbone.dtype, backbone.layers, tuple(mixes), PRIOR)).encode())
    for scorer in (cascade.probe, cascade.screen):
        sha.update(scorer.weights[view].tobytes() + scorer.biases[view].tobytes())
    if hidden := cascade.probe.hidden.get(view):
        sha.update(hidden.inner.tobytes() + hidden.bias.tobytes() + hidden.outer.tobytes())
    for exchange in dev.exchanges:
        sha.update(repr(exchange.turns).encode())
    return sha.hexdigest()[:16]


def peaks(cascade: Cascade, dev: Table, mixes: Sequence[float], progress: Progress) -> NDArray[np.float32]:
    """Running maximum of every head's logit at the end of each exchange: [mixes, exchanges, heads]. A mix is the probe's share."""
    out = np.full((len(mixes), len(dev.exchanges), 1 + len(cascade.clauses)), -np.inf, np.float32)
    shares = np.array(mixes, np.float32)[:, None, None]
    order = sorted(range(len(dev.exchanges)), key=lambda row: sum(len(turn.content) for turn in dev.exchanges[row].turns))
    for number, (row, turns) in enumerate(zip(order, cascade.read([dev.exchanges[row] for row in order]), strict=True)):
        for turn_view, pieces, states in turns:
            if turn_view == dev.view:
                probe, screen, share = TurnScorer(cascade, dev.view).apart(pieces, states)
                z = PRIOR + share[:, None] * (shares * probe + (1 - shares) * screen - PRIOR)
                out[:, row] = np.maximum(out[:, row], z.max(1))
        progress(f"calibration, {dev.view} view", number + 1, len(order))
    return out


def dev_scores(dev: Table, logits: NDArray[np.float32], clauses: Sequence[str]) -> DevScores:
    """The scores [exchanges, heads] of a dev table's exchanges with their labels and slices; `clauses` are those of the heads."""
    labels = np.zeros((len(dev.exchanges), 1 + len(clauses)), bool)
    labels[:, 0] = dev.labels[:, 0] > 0.5
    for head, clause in enumerate(clauses, 1):
        if clause in dev.clauses:
            labels[:, head] = dev.labels[:, 1 + dev.clauses.index(clause)] > 0.5
    names = tuple(dict.fromkeys(dev.slices))
    place = {name: n for n, name in enumerate(names)}
    return DevScores(logits, labels, names, np.array([place[name] for name in dev.slices], np.int32))


def score_dev(cascade: Cascade, data: Path, constitution: Constitution, progress: Progress = lambda *_: None) -> dict[View, DevScores]:
    """The dev split of a folder of examples under a guard's scorers, both views.

    Raises:
        DataError: the examples can't be read, belong to another constitution, or are too few on one side.
    """
    data_tables = tables(training_rows(data), constitution)
    cascade.backbone.hurry()
    views: tuple[View, ...] = ("prompt", "exchange")
    found = {}
    for view in views:
        dev = data_tables[view, "dev"]
        found[view] = dev_scores(dev, peaks(cascade, dev, (cascade.mix[view],), progress)[0], cascade.clauses)
    return found
