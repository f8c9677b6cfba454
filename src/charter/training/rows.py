"""Labelled exchanges as token rows, the order in which a run takes them, and a store of what the frozen blocks make of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from charter.models.encoder import Encoder
from charter.records import Exchange, View
from charter.training.pieces import CONTEXT, NOWHERE, pieces
from charter.training.table import Table

JITTER = 0.1
"""By how much a length is blurred before rows are sorted by it, so that a row meets others in each epoch."""


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange, or a piece of one that is longer than a forward: token ids int64 [tokens], which of them are scored in it, bool
    [tokens], and the exchange's labels, float32 [heads]."""

    ids: NDArray[np.int64]
    scored: NDArray[np.bool_]
    view: View
    labels: NDArray[np.float32]
    exchange: int
    """Its number; the pieces of one stand together."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded on the right with token 0: ids int [rows, tokens], scored bool [rows, tokens], labels [exchanges, heads]."""

    numbers: NDArray[np.int64]
    ids: Tensor
    scored: Tensor
    present: Tensor
    """bool [rows, tokens]: not padding."""
    labels: Tensor
    views: tuple[View, ...]
    """Of each row."""
    pieces: tuple[int, ...]
    """Rows of each exchange; they stand together."""

    def joined(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [rows, tokens, heads] by exchange, [exchanges, tokens, heads], and which of those are scored, bool [exchanges, tokens].

        The running maximum of the loss so goes through all pieces of a long exchange. Tokens that are not scored may be left out.
        """
        if len(self.pieces) == len(self.ids):
            return logits, self.scored
        sizes = list(self.pieces)
        parts = zip(torch.split(logits, sizes), torch.split(self.scored, sizes), strict=True)
        own = [z[scored] for z, scored in parts]
        lengths = torch.tensor([len(z) for z in own], device=logits.device)
        return pad_sequence(own, batch_first=True), torch.arange(int(lengths.max()), device=logits.device) < lengths[:, None]


def rows_of(tables: Sequence[Table], encoder: Encoder, context: int = CONTEXT) -> tuple[list[Row], int]:
    """All rows of the tables, in order, and how many exchanges are longer than `context`: those are read in overlapping pieces."""
    rows: list[Row] = []
    exchange = long = 0
    for table in tables:
        for own, labels in zip(table.exchanges, table.labels, strict=True):
            ids, scored = encode(encoder, own, table.view)
            parts = pieces(ids, np.where(scored, 0, NOWHERE).tolist(), context)
            rows += [Row(np.array(i), np.array(marks) > NOWHERE, table.view, labels, exchange) for i, marks in parts]
            long += len(ids) > context
            exchange += 1
    return rows, long


def encode(encoder: Encoder, exchange: Exchange, view: View) -> tuple[list[int], list[bool]]:
    """Token ids and which of them the view scores: all turns of the prompt but the marks that open them, or the reply's."""
    ids: list[int] = []
    scored: list[bool] = []
    for turn, wanted in encoder.seen(exchange, view):
        for piece in turn:
            ids += piece.ids
            scored += [wanted and piece.text is not None] * len(piece.ids)
    return ids, scored


def schedule(
    lengths: Sequence[int], batch_tokens: int, epochs: int, seed: int, exchange: Sequence[int] | None = None
) -> list[NDArray[np.int64]]:
    """The batches of a whole run, as row numbers: in each epoch every row once, rows of like length together, in random order.

    A batch holds at most `batch_tokens` tokens with its padding, or one exchange. The arguments alone decide the result.

    Args:
        exchange: the exchange of each row; one each where None. The rows of one stand together and come into one batch.
    """
    batches: list[NDArray[np.int64]] = []
    starts = np.arange(len(lengths)) if exchange is None else np.unique(exchange, return_index=True)[1]
    sizes = np.diff(np.append(starts, len(lengths)))
    known = np.maximum.reduceat(np.asarray(lengths), starts)
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        order = np.argsort(known * (1 + JITTER * rng.random(len(known))), kind="stable")
        own = _pack(order, known, sizes, batch_tokens)
        batches += [np.concatenate([starts[n] + np.arange(sizes[n]) for n in own[number]]) for number in rng.permutation(len(own))]
    return batches


def collate(rows: Sequence[Row], numbers: NDArray[np.int64]) -> Batch:
    """The rows of these numbers, padded together."""
    own = [rows[number] for number in numbers]
    shape = len(own), max(len(row.ids) for row in own)
    ids, scored, present = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for at, row in enumerate(own):
        ids[at, : len(row.ids)] = torch.from_numpy(row.ids)
        scored[at, : len(row.ids)] = torch.from_numpy(row.scored)
        present[at, : len(row.ids)] = True
    exchanges = Counter(row.exchange for row in own)
    labels = {row.exchange: row.labels for row in own}
    told = torch.from_numpy(np.stack(list(labels.values())))
    return Batch(numbers, ids, scored, present, told, tuple(row.view for row in own), tuple(exchanges.values()))


def digest(rows: Sequence[Row], *settings: object) -> str:
    """Tells one run from another by its rows and settings: 16 hex digits."""
    sha = hashlib.sha256(repr(settings).encode())
    for before, row in zip([None, *rows], rows, strict=False):
        on = "goes on " if before and before.exchange == row.exchange else ""
        sha.update(f"{on}{row.view} {len(row.ids)} ".encode() + row.ids.tobytes() + row.scored.tobytes() + row.labels.tobytes())
    return sha.hexdigest()[:16]


class LowerStates:
    """The states that enter the trained blocks, float16 on disk: the frozen blocks run once for each row, whatever the epochs.

    A row counts as there only after its states are written, so a killed run finds nothing half done.
    """

    def __init__(self, file: Path, lengths: Sequence[int], width: int) -> None:
        """`file` and its neighbour `.done` are made where they are missing, and trusted where they have the right size."""
        self._file, self._marks = file, file.with_suffix(".done")
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - np.asarray(lengths)
        shape = int(self._ends[-1]), width
        fits = file.is_file() and file.stat().st_size == shape[0] * width * 2
        fits = fits and self._marks.is_file() and self._marks.stat().st_size == len(lengths)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not fits:
            self._marks.unlink(missing_ok=True)
        self._states = np.memmap(file, np.float16, "r+" if fits else "w+", shape=shape)
        self._done = np.memmap(self._marks, np.uint8, "r+" if fits else "w+", shape=(len(lengths),))

    def get(self, numbers: NDArray[np.int64]) -> Tensor | None:
        """States of these rows, float32 [rows, tokens, width], padded with zeros; None where one is not there yet."""
        if not self._done[numbers].all():
            return None
        longest = int((self._ends - self._starts)[numbers].max())
        out = torch.zeros(len(numbers), longest, self._states.shape[1])
        for at, number in enumerate(numbers):
            own = self._states[self._starts[number] : self._ends[number]]
            out[at, : len(own)] = torch.from_numpy(own.astype(np.float32))
        return out

    def put(self, numbers: NDArray[np.int64], states: Tensor) -> None:
        """Keep the states of these rows, [rows, tokens, width]; padding is left out."""
        for at, number in enumerate(numbers):
            start, end = self._starts[number], self._ends[number]
            self._states[start:end] = squeeze(states[at, : end - start]).numpy()
        self._states.flush()
        self._done[numbers] = 1

    def remove(self) -> None:
        """Delete both files."""
        for file in (self._marks, self._file):
            file.unlink(missing_ok=True)


def squeeze(states: Tensor) -> Tensor:
    """States as they are kept: float16, what is too large for it clamped."""
    return states.clamp(-65_000, 65_000).half()


def _pack(order: NDArray[np.int64], lengths: NDArray[np.int64], sizes: NDArray[np.int64], batch_tokens: int) -> list[NDArray[np.int64]]:
    """Exchanges in batches; `lengths` are those of the longest row of each, `sizes` how many rows it has."""
    batches: list[NDArray[np.int64]] = []
    start, longest, rows = 0, 0, 0
    for at, number in enumerate(order):
        longest, rows = max(longest, int(lengths[number])), rows + int(sizes[number])
        if at > start and longest * rows > batch_tokens:
            batches.append(order[start:at])
            start, longest, rows = at, int(lengths[number]), int(sizes[number])
    return [*batches, order[start:]]
