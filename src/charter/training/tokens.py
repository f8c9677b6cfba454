"""Hidden states of single tokens, for fits that smooth logits themselves: of a subset, since a token of 30 layers takes 35 KB.

They have the shape of window means (`activations.Windows`), so the same fit takes both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.models.backbone import Backbone
from charter.models.stage import PRIOR
from charter.records import Exchange, View
from charter.training.activations import Windows
from charter.training.losses import smoothing_matrix
from charter.training.rows import encode

BATCH_TOKENS = 1_024
CONTEXT = 256
"""Tokens of an exchange that are kept, counted from its end."""
HIGHEST = 65_000.0
"""Larger numbers are clamped: float16 ends at 65,504."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """States float16 [tokens, layers * width] of the turns that a view judges, the exchanges one after the other.

    `owner` int [tokens] is the exchange of each token; `scored` bool [tokens] is False for the marks that open a turn.
    """

    states: NDArray[np.float16]
    owner: NDArray[np.int64]
    scored: NDArray[np.bool_]
    cut: int
    """Exchanges that lost their beginning to CONTEXT."""

    def windows(self, marks: bool = False, skip: int = 0) -> Windows:
        """The scored tokens as windows of one.

        Args:
            marks: with the marks that open a turn, which no scorer reads.
            skip: scored tokens left out at the beginning of each exchange, the last one excepted.
        """
        firsts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        before: NDArray[np.int64] = np.cumsum(self.scored) - self.scored
        place: NDArray[np.int64] = before - before[firsts][self.owner]
        keep = (self.scored & (place >= skip)) | (marks & ~self.scored)
        keep[np.append(firsts[1:], len(self.owner)) - 1] = True
        rows = np.flatnonzero(keep)
        return Windows(self.states, rows, self.owner[rows])


def token_states(
    backbone: Backbone, exchanges: Sequence[Exchange], view: View, folder: Path, progress: Callable[[int], None] = lambda _: None
) -> Tokens:
    """States of all layers that `backbone` reads, kept in a file of `folder` and taken from there the next time.

    In the view "prompt" all turns are kept, in the view "exchange" the reply alone, as it reads after the prompt.
    """
    encoded = [encode(backbone.encoder, exchange, view) for exchange in exchanges]
    cut = sum(len(ids) > CONTEXT for ids, _ in encoded)
    encoded = [(ids[-CONTEXT:], scored[-CONTEXT:]) for ids, scored in encoded]
    # Of a reply the turns before it are context only.
    starts = [0 if view == "prompt" else scored.index(True) for _, scored in encoded]
    sizes = [len(ids) - start for (ids, _), start in zip(encoded, starts, strict=True)]
    ends = np.cumsum(sizes)
    shape = int(ends[-1]), len(backbone.layers) * backbone.width
    digest = hashlib.sha256(repr((backbone.fingerprint, backbone.layers, view, encoded)).encode()).hexdigest()[:16]
    file = folder / f"tokens-{digest}.f16"
    if not (file.is_file() and file.stat().st_size == shape[0] * shape[1] * 2):
        _fill(backbone, [ids for ids, _ in encoded], starts, ends, shape, file, progress)
    states = np.memmap(file, np.float16, "r", shape=shape)
    scored = np.concatenate([np.array(own[start:]) for (_, own), start in zip(encoded, starts, strict=True)])
    return Tokens(states, np.repeat(np.arange(len(sizes)), sizes), scored, cut)


def _fill(
    backbone: Backbone,
    rows: list[list[int]],
    starts: list[int],
    ends: NDArray[np.int64],
    shape: tuple[int, int],
    file: Path,
    progress: Callable[[int], None],
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_suffix(".part")
    out = np.memmap(aside, np.float16, "w+", shape=shape)
    order = sorted(range(len(rows)), key=lambda n: len(rows[n]))
    while order:
        longest = len(rows[order[-1]])
        batch = [order.pop() for _ in range(min(len(order), max(1, BATCH_TOKENS // longest)))]
        states = backbone.batch([rows[n] for n in batch]).flatten(2).clamp(-HIGHEST, HIGHEST).half().numpy()
        for own, n in zip(states, batch, strict=True):
            out[ends[n] - (len(rows[n]) - starts[n]) : ends[n]] = own[starts[n] : len(rows[n])]
        progress(len(batch))
    out.flush()
    os.replace(aside, file)


def served_maximum(windows: Windows, n: int, weights: NDArray[np.float32], bias: NDArray[np.float32], window: int,
                   columns: slice | NDArray[np.int64] = slice(None)) -> NDArray[np.float32]:  # fmt: skip
    """Highest logit of each exchange as a cascade serves the probe: [n, heads].

    A moving average with decay (window - 1) / window, drawn towards the prior until `window` tokens are read; the last token, which
    is the mark that ends the turn, counts in full. Exchanges of one turn only: serving starts anew with each.
    """
    z = np.concatenate([windows.take(slice(at, at + 4_096), columns) @ weights.T + bias for at in range(0, len(windows.owner), 4_096)])
    sizes = np.bincount(windows.owner, minlength=n)
    average = smoothing_matrix("ema", window, int(sizes.max())).numpy()
    out = np.empty((n, len(bias)), np.float32)
    for number, own in enumerate(np.split(z, np.cumsum(sizes)[:-1])):
        share = np.minimum(1.0, (1 + np.arange(len(own))) / window)[:, None]
        share[-1] = 1.0
        out[number] = (PRIOR + share * (average[: len(own), : len(own)] @ own - PRIOR)).max(0)
    return out
