"""One turn on its way through the screen and the stages after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from charter.models.backbone import Piece
from charter.models.stage import PRIOR, Source, StageTurn, mixed, out_of_the_prior
from charter.models.whole import Heard, joined
from charter.records import View

if TYPE_CHECKING:
    from charter.models.cascade import Cascade

Logits = NDArray[np.float32]


@dataclass(slots=True)
class Run:
    """Tokens of a turn on their way through the stages."""

    view: View
    pieces: Sequence[Piece]
    share: Logits
    """[tokens]: how far a logit counts against the prior, below 1 until a window is full."""
    z: Logits
    """Logits [tokens, heads] so far."""
    apart: list[Logits]
    """Logits of each stage by itself, the screen's first; last those of the whole turn, where it is read."""

    def end(self, heard: Heard, share: float) -> None:
        """The part of what has read the whole turn."""
        own = np.full_like(self.z, PRIOR)
        own[-1:] = heard.z
        self.z = joined(self.z, heard.z, share)
        self.apart.append(own)


class TurnScorer:
    """The running state of every stage over one turn.

    Until a window is full, screen and probe are drawn towards the prior in proportion; the mark that ends a turn counts in full.
    """

    def __init__(self, cascade: Cascade, view: View) -> None:
        self._view = view
        self._screen = cascade.screen.turn(view)
        self._stages = [StageTurn(stage, view) for stage in cascade.stages]
        self._whole = cascade.whole
        self._window = cascade.probe.averaging.window
        self._read = 0

    def feed(self, pieces: Sequence[Piece], sources: Sequence[Source], heard: Heard | None = None) -> Logits:
        """Logits [tokens, heads] of the scored tokens among the pieces' (marks that open a turn have none).

        Args:
            sources: one for each stage.
            heard: what has been made of the turn as a whole, if that is read and this is all of it.
        """
        run = self.start(pieces)
        for number, source in enumerate(sources):
            self.go_on(number, run, source)
        if heard:
            assert self._whole is not None
            run.end(heard, self._whole.mix)
        return run.z

    def start(self, pieces: Sequence[Piece]) -> Run:
        """The screen's part."""
        scored = [p for p in pieces if p.text is not None]
        z = self._screen.feed(scored)
        share = np.minimum(1.0, (self._read + 1 + np.arange(len(z))) / self._window).astype(np.float32)
        share[np.repeat([p.text == "" for p in scored], [len(p.ids) for p in scored])] = 1.0
        self._read += len(z)
        z = out_of_the_prior(z, share)
        return Run(self._view, pieces, share, z, [z])

    def go_on(self, number: int, run: Run, source: Source) -> None:
        """The part of a later stage."""
        stage = self._stages[number]
        own = stage.feed(run.pieces, run.z, run.share, source)
        run.z = mixed(run.z, own, stage.mix)
        run.apart.append(own)
