"""Train the first glance of a sentence encoder (`models.glance`): a small layer on the means of word vectors, by the loudest span of each prompt.

Near misses are left out where there is other harmless text: a glance is to tell what deserves to be read from ordinary traffic, and what
touches a subject deserves it, whichever side it then turns out to be on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from charter.models.glance import Glance, spans
from charter.models.sentence import SentenceEncoder
from charter.training.activations import Windows
from charter.training.hidden import fit_hidden
from charter.training.table import Table

UNITS, EPOCHS = 128, 25
PART = 512
"""Windows whose spans are made at once."""


def fit_glance(
    encoder: SentenceEncoder,
    turns: Sequence[tuple[int, str]],
    table: Table,
    seed: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Glance:
    """The layer, rounded as it will be stored. The same seed gives the same weights.

    Args:
        encoder: as it comes, in float32; what is trained into its blocks changes no word vector.
        turns: every turn of the prompts, with the number of its exchange, in order.
        table: of the prompt view.
    """
    rows = [(number, window) for number, text in turns for window in encoder.rows(text)]
    parts = [spans(encoder, [window for _, window in rows[start : start + PART]]) for start in range(0, len(rows), PART)]
    owner = np.concatenate([start + own for start, (_, own) in zip(range(0, len(rows), PART), parts, strict=True)])
    exchange = np.array([number for number, _ in rows], np.int64)[owner]
    kept = np.flatnonzero(taught(table))
    means = np.concatenate([own for own, _ in parts]).astype(np.float16)
    windows = Windows(means, np.arange(len(means)), exchange).of(kept)
    layer, bias = fit_hidden(windows, table.labels[kept][:, :1], np.arange(encoder.width), seed, UNITS, EPOCHS, progress)
    return Glance(layer.rounded(), float(bias[0]))


def taught(table: Table) -> NDArray[np.bool_]:
    """The rows that it learns from: [rows]."""
    ordinary = table.is_ordinary
    return ordinary | (table.labels[:, 0] > 0.5) if ordinary.any() else np.ones(len(ordinary), bool)
