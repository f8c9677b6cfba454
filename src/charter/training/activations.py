"""The activation pass: every exchange once through the backbone, window means to disk. Memory does not grow with their number.

The probe's logits are linear in the hidden states, so the mean logit over a window is the logit of the window's mean: storing
means of M tokens loses nothing that the loss would see. Windows end at every STRIDE-th token from the M-th, and at the end of
the turn (shorter turns give one window: what there is).

The store is kept in the cache by backbone, layers and text, so a killed pass goes on where it stopped and the training after a
one-clause edit only runs what is new.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.probe import WINDOW
from charter.records import Exchange, View
from charter.training.pieces import pieces

STRIDE = 16
"""Tokens from one stored window to the next."""
BATCH_TOKENS = 2_048


@dataclass(frozen=True, slots=True)
class Windows:
    """Window means of a list of exchanges.

    `rows` maps each window to a row of the memory-mapped store, `owner` to the number of its exchange; both int [windows].
    """

    store: NDArray[np.float16]
    rows: NDArray[np.int64]
    owner: NDArray[np.int64]
    long: int = 0
    """Exchanges that were read in overlapping pieces."""

    def take(self, picked: slice | NDArray[np.int64], columns: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:
        """Means of some windows, or some of their inputs: float32 [windows, layers * width]."""
        return self.store[self.rows[picked]][:, columns].astype(np.float32)

    def of(self, exchanges: NDArray[np.int64]) -> Windows:
        """The windows of these exchanges, in this order and as often as they come, renumbered. Only numbers are copied."""
        sizes = np.bincount(self.owner, minlength=int(exchanges.max()) + 1)
        own = np.split(np.argsort(self.owner, kind="stable"), np.cumsum(sizes)[:-1])
        rows = np.concatenate([own[n] for n in exchanges])
        return Windows(self.store, self.rows[rows], np.repeat(np.arange(len(exchanges)), sizes[exchanges]))


class ActivationStore:
    """Window means on disk, appended in the order in which they are computed."""

    def __init__(self, folder: Path, backbone: Backbone, window: int = WINDOW) -> None:
        """`window` is M; where it is less than STRIDE, windows end at every M-th token, so that each token is in one."""
        self._window, self._stride = window, min(STRIDE, window)
        weights = hashlib.sha256(
            repr((backbone.name, backbone.layers, self._window, self._stride, backbone.fingerprint)).encode()
        ).hexdigest()[:16]
        self._folder = folder / weights
        self._folder.mkdir(parents=True, exist_ok=True)
        self._backbone = backbone
        self._inputs = len(backbone.layers) * backbone.width
        self._index: dict[str, tuple[int, int]] = {}
        self._count = 0
        self._recover()

    def windows(self, exchanges: Sequence[Exchange], view: View, progress: Callable[[int], None] = lambda _: None) -> Windows:
        """Windows of the prompts' turns (view "prompt") or of the replies (views "exchange" and "reply"), computed where not yet stored.

        Args:
            progress: called with the number of exchanges done since the last call.
        """
        parts = [pieces(*self._encode(exchange, view)) for exchange in exchanges]
        encoded = [piece for own in parts for piece in own]
        named = [[_key(*piece) for piece in own] for own in parts]
        keys = [key for own in named for key in own]
        missing = {key: number for number, key in enumerate(keys) if key not in self._index}
        opening = Counter(own[0] for own in named if own)  # an exchange counts by its first piece
        progress(sum(count for key, count in opening.items() if key not in missing))
        numbers = list(missing.values())
        with (self._folder / "windows.f16").open("ab") as data, (self._folder / "index.jsonl").open("a") as index:
            for batch in _batches([encoded[n] for n in numbers]):
                self._append([encoded[numbers[b]] for b in batch], [keys[numbers[b]] for b in batch], data, index)
                progress(sum(opening[keys[numbers[b]]] for b in batch))
        owner = np.repeat(np.arange(len(parts)), list(map(len, parts)))
        return self._collect(keys, owner, sum(len(own) > 1 for own in parts))

    def _encode(self, exchange: Exchange, view: View) -> tuple[list[int], list[int]]:
        """Token ids, and for each the number of the turn whose window it belongs to, or -1."""
        ids: list[int] = []
        marks: list[int] = []
        for number, (turn, wanted) in enumerate(self._backbone.encoder.seen(exchange, view)):
            for piece in turn:
                ids += piece.ids
                marks += [number if wanted and piece.text is not None else -1] * len(piece.ids)
        return ids, marks

    def _append(self, encoded: list[tuple[list[int], list[int]]], keys: list[str], data: IO[bytes], index: IO[str]) -> None:
        spans = [list(_spans(marks, self._window, self._stride)) for _, marks in encoded]
        longest = max(len(ids) for ids, _ in encoded)
        pool = torch.zeros(sum(map(len, spans)), len(encoded) * longest)
        for row, (start, end) in enumerate((n * longest + a, n * longest + b) for n, own in enumerate(spans) for a, b in own):
            pool[row, start:end] = 1.0 / (end - start)
        means = self._backbone.batch([ids for ids, _ in encoded], pool).flatten(1)
        if not torch.isfinite(means).all():
            raise BackboneError(
                f"{self._backbone.name}: gives states that are no finite numbers, first for a text of {longest:,} tokens; choose another"
            )
        data.write(means.clamp(-65_000, 65_000).half().numpy().tobytes())
        data.flush()  # before the index names the rows: a killed run finds no index entry without its data
        for key, own in zip(keys, spans, strict=True):
            self._index[key] = (self._count, len(own))
            index.write(json.dumps([key, self._count, len(own)]) + "\n")
            self._count += len(own)
        index.flush()

    def _collect(self, keys: list[str], of: NDArray[np.int64], long: int) -> Windows:
        """The windows of the pieces with these keys, each of the exchange with that number."""
        spans = [self._index[key] for key in keys]
        rows = np.concatenate([np.arange(start, start + n) for start, n in spans])
        owner = np.repeat(of, [n for _, n in spans])
        store = np.memmap(self._folder / "windows.f16", np.float16, "r", shape=(self._count, self._inputs))
        return Windows(store, rows, owner, long)

    def _recover(self) -> None:
        """Read the index of an earlier run and cut off what was written after its last whole entry."""
        path, data = self._folder / "index.jsonl", self._folder / "windows.f16"
        whole = 0
        if path.is_file():
            for line in path.read_text().splitlines(keepends=True):
                if not line.endswith("\n"):
                    break
                key, start, n = json.loads(line)
                self._index[key] = (start, n)
                self._count = start + n
                whole += len(line)
            os.truncate(path, whole)
        data.touch()
        width = self._inputs * 2
        if data.stat().st_size < self._count * width:  # the disk lost more than the index knows: start afresh
            self._index, self._count = {}, 0
            path.unlink()
        os.truncate(data, self._count * width)


def _spans(marks: list[int], window: int, stride: int) -> Iterator[tuple[int, int]]:
    """Start and end of each window: at most `window` tokens of one turn, ending at every `stride`-th from there and at the turn's last."""
    for number in sorted(set(marks) - {-1}):
        first, last = marks.index(number), len(marks) - marks[::-1].index(number)
        for end in sorted({*range(first + window, last, stride), last}):
            yield max(first, end - window), end


def _batches(encoded: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[int]]:
    """Numbers of sequences of like length, padded together to at most BATCH_TOKENS."""
    order = sorted(range(len(encoded)), key=lambda n: len(encoded[n][0]))
    batch: list[int] = []
    for number in order:
        if batch and (len(batch) + 1) * len(encoded[number][0]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _key(ids: list[int], marks: list[int]) -> str:
    return hashlib.sha256(np.array([ids, marks], dtype=np.int32).tobytes()).hexdigest()[:24]


Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""
