"""The screen: a logistic model on hashed word n-grams with a running state. Microseconds a word, no backbone.

After the t-th segment of a turn, with u_s the summed weights of the features of segment s, k_s their number and decay d:

    z_t = b + (sum_s d^(t-s) u_s) / sqrt(sum_s d^(t-s) k_s)

so the state is one vector and one number, whatever the length. Training builds the same sums at the end of each turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from charter.models.encoder import Piece
from charter.models.reading import read
from charter.records import View

BUCKETS = 1 << 16
DECAY = 0.985
"""A word counts half after 46 more: long enough for a paragraph, short enough to notice one bad sentence in a page."""
EDGES = " \t\r\n.,;:!?\"'()[]{}<>*_`~"


@dataclass(frozen=True, slots=True)
class Features:
    """The hashed features of one segment, as (bucket, sign) pairs."""

    buckets: NDArray[np.int64]
    signs: NDArray[np.float32]


@lru_cache(maxsize=65_536)
def features(segment: str, before: str) -> tuple[Features, str]:
    """Features of a segment after the word `before`, and the word it leaves for the next one.

    Words, pairs of words, and the character 4-grams inside a word (so that inflections and typos share weights).
    A base64 segment may read as many words; all of them count.
    """
    names: list[str] = []
    for word in read(segment).lower().split():
        word = word.strip(EDGES)
        if not word:
            continue
        names += [word, f"{before} {word}"]
        edged = f"<{word}>"
        names += [f"#{edged[i : i + 4]}" for i in range(len(edged) - 3)]
        before = word
    hashes = np.array([crc32(name.encode()) for name in names], dtype=np.int64)
    return Features(hashes % BUCKETS, np.where(hashes >> 16 & 1, 1.0, -1.0).astype(np.float32)), before


@dataclass(frozen=True, slots=True)
class Screen:
    """Weights for each view: float32 [buckets, heads] and biases [heads]; head 0 is overall, then one a clause."""

    weights: dict[View, NDArray[np.float32]]
    biases: dict[View, NDArray[np.float32]]

    def turn(self, view: View) -> ScreenTurn:
        """The state for a new turn."""
        return ScreenTurn(self.weights[view], self.biases[view])


class ScreenTurn:
    """The running sums over one turn."""

    def __init__(self, weights: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
        self._weights, self._bias = weights, bias
        self._sum = np.zeros_like(bias)
        self._count = 0.0
        self._before = ""

    def feed(self, pieces: Sequence[Piece]) -> NDArray[np.float32]:
        """Logits after each piece, repeated for each of its tokens: float32 [tokens, heads]."""
        rows = []
        for piece in pieces:
            if piece.text:
                found, self._before = features(piece.text, self._before)
                self._sum = DECAY * self._sum + found.signs @ self._weights[found.buckets]
                self._count = DECAY * self._count + len(found.buckets)
            z = self._bias + self._sum / max(self._count, 1.0) ** 0.5
            rows += [z] * len(piece.ids)
        return np.array(rows, dtype=np.float32).reshape(-1, len(self._bias))


def turn_features(segments: Sequence[str]) -> dict[int, float]:
    """The state after a whole turn as a sparse row, bucket to value: what `ScreenTurn` would multiply with the weights."""
    row: dict[int, float] = {}
    before, count, scale = "", 0.0, 1.0
    found_all = []
    for segment in segments:
        found, before = features(segment, before)
        found_all.append(found)
    for found in reversed(found_all):
        for bucket, sign in zip(found.buckets.tolist(), found.signs.tolist(), strict=True):
            row[bucket] = row.get(bucket, 0.0) + scale * sign
        count += scale * len(found.buckets)
        scale *= DECAY
    norm = max(count, 1.0) ** 0.5
    return {bucket: value / norm for bucket, value in row.items()}
