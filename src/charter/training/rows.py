"""Labelled exchanges as token rows, the order in which a run takes them, and a store of what the frozen blocks make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charter.models.backbone import Encoder
from charter.records import Exchange, View
from charter.training.table import Table

CONTEXT = 1_024
"""Tokens of an exchange that training reads, counted from its end; longer ones are rare and are counted. Serving cuts nothing."""
JITTER = 0.1
"""By how much a length is blurred before rows are sorted by it, so that a row meets others in each epoch."""


@dataclass(frozen=True, slots=True)
class Row:
    """One exchange: token ids int64 [tokens], which of them its view scores, bool [tokens], and labels float32 [heads]."""

    ids: NDArray[np.int64]
    scored: NDArray[np.bool_]
    view: View
    labels: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded on the right with token 0: ids int [rows, tokens], scored bool [rows, tokens], labels [rows, heads]."""

    numbers: NDArray[np.int64]
    ids: Tensor
    scored: Tensor
    present: Tensor
    """bool [rows, tokens]: not padding."""
    labels: Tensor
    views: tuple[View, ...]


def rows_of(tables: Sequence[Table], encoder: Encoder, context: int = CONTEXT) -> tuple[list[Row], int]:
    """All rows of the tables, in order, and how many lost their beginning to `context`."""
    rows: list[Row] = []
    cut = 0
    for table in tables:
        for exchange, labels in zip(table.exchanges, table.labels, strict=True):
            ids, scored = encode(encoder, exchange, table.view)
            cut += len(ids) > context
            rows.append(Row(np.array(ids[-context:]), np.array(scored[-context:]), table.view, labels))
    return rows, cut


def encode(encoder: Encoder, exchange: Exchange, view: View) -> tuple[list[int], list[bool]]:
    """Token ids and which of them the view scores: all turns of the prompt but the marks that open them, or the reply's."""
    turns = exchange.seen(view)
    ids: list[int] = []
    scored: list[bool] = []
    for number, turn in enumerate(turns):
        wanted = view == "prompt" or number == len(turns) - 1
        for piece in encoder.turn(turn):
            ids += piece.ids
            scored += [wanted and piece.text is not None] * len(piece.ids)
    return ids, scored


def schedule(lengths: Sequence[int], batch_tokens: int, epochs: int, seed: int) -> list[NDArray[np.int64]]:
    """The batches of a whole run, as row numbers: in each epoch every row once, rows of like length together, in random order.

    A batch holds at most `batch_tokens` tokens with its padding, or one row. The arguments alone decide the result.
    """
    batches: list[NDArray[np.int64]] = []
    known = np.asarray(lengths)
    for epoch in range(epochs):
        rng = np.random.default_rng([seed, epoch])
        order = np.argsort(known * (1 + JITTER * rng.random(len(known))), kind="stable")
        own = _pack(order, known, batch_tokens)
        batches += [own[number] for number in rng.permutation(len(own))]
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
    labels = torch.from_numpy(np.stack([row.labels for row in own]))
    return Batch(numbers, ids, scored, present, labels, tuple(row.view for row in own))


def digest(rows: Sequence[Row], *settings: object) -> str:
    """Tells one run from another by its rows and settings: 16 hex digits."""
    sha = hashlib.sha256(repr(settings).encode())
    for row in rows:
        sha.update(f"{row.view} {len(row.ids)} ".encode() + row.ids.tobytes() + row.scored.tobytes() + row.labels.tobytes())
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


def _pack(order: NDArray[np.int64], lengths: NDArray[np.int64], batch_tokens: int) -> list[NDArray[np.int64]]:
    batches: list[NDArray[np.int64]] = []
    start, longest = 0, 0
    for at, number in enumerate(order):
        longest = max(longest, int(lengths[number]))
        if at > start and longest * (at + 1 - start) > batch_tokens:
            batches.append(order[start:at])
            start, longest = at, int(lengths[number])
    return [*batches, order[start:]]
