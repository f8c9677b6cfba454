"""The first glance at a window of a text: its word vectors alone, before the sentence encoder's blocks read it. It decides whether they do.

    g = max over spans of v gelu(U x + c) + b     x the mean of a span's word vectors

The spans are 64 word pieces long and overlap by half, so a sentence in the midst of a long page counts as much as one by itself. A
table is looked up and one small layer run a span: a thousandth of what the blocks would cost, and by numpy, since to wake torch's threads
takes longer than the work. No order of words enters, but what the
text is about does, and words that mean the same have vectors that lie close: the screen's hashed words have neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charter.models.probe import Hidden
from charter.models.sentence import SentenceEncoder

SPAN, STEP = 64, 32
"""Word pieces of a span, and from one span's start to the next. Spans of 32 or 16 let more ordinary texts through, at the same share of restricted ones."""
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Glance:
    """The layer on the means of word vectors."""

    layer: Hidden
    bias: float

    def of(self, encoder: SentenceEncoder, windows: Sequence[Sequence[int]]) -> Logits:
        """g of windows of token ids, with the marks around them: float32 [windows]."""
        means, owner = spans(encoder, windows)
        out = np.full(len(windows), -np.inf, np.float32)
        np.maximum.at(out, owner, self.layer.above(means @ self.layer.inner.T)[:, 0] + np.float32(self.bias))
        return out

    @property
    def flops_per_token(self) -> float:
        """2 FLOPs a weight and span; a token lies in SPAN / STEP of them at most."""
        return 2.0 * (self.layer.inner.size + self.layer.outer.size) / STEP


def spans(encoder: SentenceEncoder, windows: Sequence[Sequence[int]]) -> tuple[Logits, NDArray[np.int64]]:
    """The mean of the word vectors of each span of each window, [spans, width], and the number of the window that it belongs to, [spans].

    Args:
        windows: token ids with the marks around them, which do not count; a window of nothing else has one span of zeros.
    """
    own = [_means(encoder.words(window[1:-1])) for window in windows]
    owner = np.repeat(np.arange(len(own)), [len(means) for means in own])
    return np.concatenate(own) if own else np.empty((0, encoder.width), np.float32), owner


def _means(words: Logits) -> Logits:
    """Of word vectors [words, width]: [spans, width]. The last span ends where the window does."""
    if not len(words):
        return np.zeros((1, words.shape[1]), np.float32)
    starts = range(0, max(1, len(words) - SPAN + STEP), STEP)
    return np.stack([words[start : start + SPAN].mean(0) if start + SPAN < len(words) else words[-SPAN:].mean(0) for start in starts])
