"""Train what a sentence encoder makes of whole turns: its vectors once, kept on disk, then a hidden layer on them (`training.hidden`).

Every turn of a prompt is read, and the loudest of its windows carries the label, as when serving.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from charter.models.reading import undone
from charter.models.sentence import SentenceEncoder
from charter.models.whole import Whole
from charter.training.activations import Windows
from charter.training.hidden import fit_hidden
from charter.training.table import Table

UNITS, EPOCHS = 512, 25
"""Of the hidden layer, and passes over the data: more than the probe's, whose inputs are twenty times as many (docs/decisions/012)."""
PART = 256
"""Turns between two reports of progress."""
Progress = Callable[[str, int, int], None]


def fit_whole(encoder: SentenceEncoder, table: Table, seed: int, cache: Path, progress: Progress = lambda *_: None) -> Whole:
    """The layer, rounded as it will be stored; its share is still to be chosen. The same seed gives the same weights.

    Args:
        table: of the prompt view.
        cache: folder in which the vectors are kept for the next run on the same texts.

    Raises:
        DataError: the loss is not finite.
    """
    assert table.view == "prompt"
    encoder.hurry()
    windows = vectors(encoder, table, cache, progress)
    columns = np.arange(encoder.width)
    layer, bias = fit_hidden(
        windows, table.labels, columns, seed, UNITS, EPOCHS, lambda done, of: progress("sentence encoder's layer", done, of)
    )
    return Whole(encoder, layer.rounded(), bias, 0.5)


def vectors(encoder: SentenceEncoder, table: Table, cache: Path, progress: Progress) -> Windows:
    """A vector for each window of every turn of the prompts, float16, by exchange."""
    turns = [(number, turn.content) for number, exchange in enumerate(table.exchanges) for turn in exchange.prompt]
    told = hashlib.sha256(repr((encoder.fingerprint, [content for _, content in turns])).encode()).hexdigest()[:16]
    file = cache / f"{told}.safetensors"
    found = _kept(file)
    if found is None:
        found = _encoded(encoder, [content for _, content in turns], progress)
        cache.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f"{file.name}.{os.getpid()}.part")
        save_file(found, aside)
        os.replace(aside, file)
    exchange = np.array([number for number, _ in turns], np.int64)
    return Windows(found["vectors"], np.arange(len(found["turns"])), exchange[found["turns"]])


def _encoded(encoder: SentenceEncoder, texts: Sequence[str], progress: Progress) -> dict[str, NDArray[Any]]:
    """Vectors float16 [windows, width] and the number of the text that each belongs to."""
    parts, turns = [], []
    for start in range(0, len(texts), PART):
        own, owner, _ = encoder.vectors([undone(text) for text in texts[start : start + PART]])
        parts.append(own.astype(np.float16))
        turns.append(start + owner)
        progress("sentence encoder", min(start + PART, len(texts)), len(texts))
    return {"vectors": np.concatenate(parts), "turns": np.concatenate(turns)}


def _kept(file: Path) -> dict[str, NDArray[Any]] | None:
    """What an earlier run left; None where there is nothing whole."""
    try:
        return load_file(file)
    except (OSError, SafetensorError):
        return None
