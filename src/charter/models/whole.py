"""The sentence encoder's part in the cascade: each turn of a prompt as a whole, weighed where the turn ends.

    z_t = (1 - a) z'_t + a PRIOR                   before the mark that ends the turn: nothing is known of the whole yet
    z_T = (1 - a) max_{t <= T} z'_t + a e          at the mark

z' is what the stages that read along make of a token, and e the logit of the whole turn, by the loudest of its windows:

    e = max over windows of V gelu(U x + c) + b    x a window's vector (`sentence`)

So the mark's logit joins two judgements of the same text, and no token before it says more than the reading along does alone.
A reply has no end until it is over, so only prompts are read as a whole.

It also comes before the backbone. Screen and encoder together give a first impression of a turn, with the screen's s_t,

    i = (1 - b) max_t s_t + b e

and where that stays below the probe's escalation threshold, the backbone is not run for the turn. The encoder itself reads only the
windows at which a first glance (`glance`) reaches a threshold of its own; of the others e is the prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charter.models.encoder import Piece
from charter.models.glance import Glance
from charter.models.probe import Hidden
from charter.models.reading import read
from charter.models.sentence import SentenceEncoder
from charter.models.stage import ALWAYS, PRIOR

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Heard:
    """What was made of a whole turn, and of each of its windows."""

    z: Logits
    """[heads]."""
    first: float
    """i, the first impression."""
    glances: Logits
    """[windows]; without a glance, all infinite."""
    e: Logits
    """[windows, heads]; the prior where a window was not read."""
    sizes: NDArray[np.int64]
    """Word pieces of each window, marks and overlaps included: [windows]."""
    read: int
    """Those that the encoder has read."""


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
    glance: Glance | None = None
    """By which it is decided what the encoder reads; None: it reads everything."""
    escalate: float = ALWAYS
    """The glance from which a window is read."""

    @property
    def flops_per_token(self) -> float:
        """Of the encoder; the layer on its vectors is read once a window."""
        return self.encoder.flops_per_token

    def hear(self, turns: Sequence[Sequence[Piece]], screens: Sequence[Logits]) -> list[Heard]:
        """What it makes of turns, given by their pieces and the screen's logits [tokens, heads] of each."""
        parts = [self.encoder.rows(text_of(turn)) for turn in turns]
        windows = [window for own in parts for window in own]
        glances = self.glance.of(self.encoder, windows) if self.glance else np.full(len(windows), np.inf, np.float32)
        asked = np.flatnonzero(~(glances < self.escalate)).tolist()
        e, sizes = np.full((len(windows), len(self.bias)), PRIOR, np.float32), np.array(list(map(len, windows)), np.int64)
        if asked:
            e[asked] = self.layer.logits(self.encoder.encode([windows[n] for n in asked])) + self.bias
        read = np.zeros_like(sizes)
        read[asked] = sizes[asked]
        heard, end = [], 0
        for screen, own in zip(screens, parts, strict=True):
            of = slice(end, end := end + len(own))
            z = e[of].max(0)
            first = impression(screen[:, 0].max(initial=-np.inf), z[0], self.lead)
            heard.append(Heard(z, first, glances[of], e[of], sizes[of], int(read[of].sum())))
        return heard


def text_of(pieces: Iterable[Piece]) -> str:
    """A turn as the encoder reads it, every segment with its disguise undone (`reading`)."""
    return "".join(read(piece.text) for piece in pieces if piece.text)


def impression(loud: float, e: float, lead: float) -> float:
    """i of a turn, from the screen's highest logit and the encoder's overall one."""
    share = np.float32(lead)
    return float(e if lead == 1 else (1 - share) * np.float32(loud) + share * np.float32(e))


def joined(below: Logits, whole: Logits, share: float) -> Logits:
    """Logits [tokens, heads] of a turn whose last token is the mark that ends it, with those of the whole turn [heads]."""
    out = below + np.float32(share) * (np.float32(PRIOR) - below)
    out[-1] = (1 - np.float32(share)) * below.max(0) + np.float32(share) * whole
    return out
