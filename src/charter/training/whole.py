"""Train what a sentence encoder makes of whole turns: the first glance (`training.glance`), its vectors once, kept on disk, then a hidden layer
on them (`training.hidden`), and from there on, where that is wanted, the encoder itself (`training.tuning`).

Every turn of a prompt is read, and what one in disguise says, and the loudest of their windows carries the label, as when serving.
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

from charter.models.encoder import Encoder
from charter.models.sentence import SentenceEncoder
from charter.models.whole import Whole, text_of
from charter.training.activations import Windows
from charter.training.glance import fit_glance
from charter.training.hidden import fit_hidden
from charter.training.table import Table
from charter.training.tuning import Windowed, tune

UNITS, EPOCHS = 512, 25
"""Of the hidden layer, and passes over the data: more than the probe's, whose inputs are twenty times as many (docs/decisions/012)."""
PART = 256
"""Turns between two reports of progress."""
Progress = Callable[[str, int, int], None]


def fit_whole(
    encoder: SentenceEncoder, pieces: Encoder, table: Table, seed: int, cache: Path, epochs: int = 0, progress: Progress = lambda *_: None
) -> Whole:
    """The layer, rounded as it will be stored, on its encoder, with the first glance; its share is still to be chosen. The same seed gives the same weights.

    Args:
        pieces: the backbone's, which gives the turns as they are read when serving.
        table: of the prompt view.
        cache: folder in which the vectors are kept for the next run on the same texts.
        epochs: passes over the prompts in which the encoder is tuned; 0 leaves it as it is.

    Raises:
        BackboneError: the encoder can't be tuned.
        DataError: a loss is not finite.
        MissingExtra: what tunes it is not installed.
    """
    assert table.view == "prompt"
    turns = spoken(pieces, table)
    glance = fit_glance(encoder, turns, table, seed, lambda done, of: progress("sentence encoder's first glance", done, of))
    encoder.hurry()
    windows = vectors(encoder, turns, cache, progress)
    columns = np.arange(encoder.width)
    layer, bias = fit_hidden(
        windows, table.labels, columns, seed, UNITS, EPOCHS, lambda done, of: progress("sentence encoder's layer", done, of)
    )
    if epochs:
        plain = SentenceEncoder(encoder.name)
        rows = [(number, row) for number, text in turns for row in plain.rows(text)]
        data = Windowed([row for _, row in rows], np.array([number for number, _ in rows], np.int64), table.labels)
        change, layer, bias = tune(
            plain, data, (layer, bias), epochs, seed, cache / "tuning", lambda done, of: progress("tuning the sentence encoder", done, of)
        )
        encoder = SentenceEncoder(encoder.name, change)
    return Whole(encoder, layer.rounded(), bias, 0.5, glance=glance)


def spoken(pieces: Encoder, table: Table) -> list[tuple[int, str]]:
    """Every turn of the prompts as the encoder reads it, with the number of its exchange."""
    return [(number, text_of(turn)) for number, exchange in enumerate(table.exchanges) for turn in pieces.prompt(exchange.prompt)]


def vectors(encoder: SentenceEncoder, turns: Sequence[tuple[int, str]], cache: Path, progress: Progress) -> Windows:
    """A vector for each window of turns, given by the number of their exchange and their text: float16, by exchange."""
    told = hashlib.sha256(repr((encoder.fingerprint, [text for _, text in turns])).encode()).hexdigest()[:16]
    file = cache / f"{told}.safetensors"
    found = _kept(file)
    if found is None:
        found = _encoded(encoder, [text for _, text in turns], progress)
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
        own, owner, _ = encoder.vectors(texts[start : start + PART])
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
