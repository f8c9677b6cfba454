"""The sentence encoder's part in the cascade: each turn of a prompt as a whole, weighed where the turn ends.

    z_t = (1 - a) z'_t + a PRIOR                   before the mark that ends the turn: nothing is known of the whole yet
    z_T = (1 - a) max_{t <= T} z'_t + a e          at the mark

z' is what the stages that read along make of a token, and e the logit of the whole turn, by the loudest of its windows:

    e = max over windows of V gelu(U x + c) + b    x a window's vector (`sentence`)

So the mark's logit joins two judgements of the same text, and no token before it says more than the reading along does alone.
A reply has no end until it is over, so only prompts are read as a whole.

It also comes before the backbone. Screen and encoder together give a first impression of a turn, with the screen's s_t,

    i = (1 - b) max_t s_t + b e

and where that stays below the probe's escalation threshold, the backbone is not run for the turn. The encoder itself is asked where the
screen alone reaches a threshold of its own; else e is the prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charter.models.encoder import Piece
from charter.models.probe import Hidden
from charter.models.reading import read
from charter.models.sentence import SentenceEncoder
from charter.models.stage import ALWAYS, PRIOR

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Heard:
    """What was made of a whole turn."""

    z: Logits
    """[heads]."""
    first: float
    """i, the first impression."""
    read: int
    """Word pieces that the encoder has read for it, marks and overlaps included."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What reads whole turns, and its share of the logit."""

    encoder: SentenceEncoder
    layer: Hidden
    bias: Logits
    """[heads]."""
    mix: float
    """Its share a."""
    lead: float = 0.5
    """Its share b of the first impression."""
    escalate: float = ALWAYS
    """The screen's logit from which a turn is read."""

    @property
    def flops_per_token(self) -> float:
        """Of the encoder; the layer on its vectors is read once a window."""
        return self.encoder.flops_per_token

    def hear(self, turns: Sequence[Sequence[Piece]], screens: Sequence[Logits]) -> list[Heard]:
        """What it makes of turns, given by their pieces and the screen's logits [tokens, heads] of each."""
        loud = np.array([z[:, 0].max(initial=-np.inf) for z in screens], np.float32)
        asked = np.flatnonzero(~(loud < self.escalate)).tolist()
        z, read = np.full((len(turns), len(self.bias)), PRIOR, np.float32), np.zeros(len(turns), np.int64)
        if asked:
            vectors, owner, sizes = self.encoder.vectors([text_of(turns[n]) for n in asked])
            z[asked], read[asked] = self.of(vectors, owner), np.bincount(owner, sizes, len(asked))
        first = impression(loud, z[:, 0], self.lead)
        return [Heard(*own) for own in zip(z, first.tolist(), read.tolist(), strict=True)]

    def of(self, vectors: Logits, owner: NDArray[np.int64]) -> Logits:
        """e of texts, from their windows' vectors [windows, width] and the text that each belongs to [windows]: [texts, heads]."""
        return loudest(self.layer.logits(vectors) + self.bias, owner)


def text_of(pieces: Iterable[Piece]) -> str:
    """A turn as the encoder reads it, every segment with its disguise undone (`reading`)."""
    return "".join(read(piece.text) for piece in pieces if piece.text)


def impression(loud: Logits, e: Logits, lead: float) -> Logits:
    """i of turns, from the screen's highest logit and the encoder's: float32 [turns]."""
    return np.asarray((1 - np.float32(lead)) * loud + np.float32(lead) * e, np.float32)


def loudest(z: Logits, owner: NDArray[np.int64]) -> Logits:
    """The highest logit over the windows of each text: [windows, heads] to [texts, heads]."""
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    return np.asarray(np.maximum.reduceat(z, starts), np.float32)


def joined(below: Logits, whole: Logits, share: float) -> Logits:
    """Logits [tokens, heads] of a turn whose last token is the mark that ends it, with those of the whole turn [heads]."""
    out = below + np.float32(share) * (np.float32(PRIOR) - below)
    out[-1] = (1 - np.float32(share)) * below.max(0) + np.float32(share) * whole
    return out
