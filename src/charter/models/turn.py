"""One turn on its way through the screen and the stages after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from charter.models.encoder import Piece
from charter.models.stage import ALWAYS, Source, StageTurn, escalated, mixed, out_of_the_prior
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
    """Logits of each stage by itself, the screen's first."""
    heard: Heard | None = None
    """What was made of the whole turn, where it is read."""

    def reaches(self, number: int, theta: float) -> bool:
        """Whether any token of the turn reaches a stage's escalation threshold."""
        if theta == ALWAYS:
            return True
        first = self.first(number)
        return bool(escalated(self.z, theta).any()) if first is None else not first < theta

    def first(self, number: int) -> float | None:
        """The first impression, by which the first stage is asked about the whole turn; None for the others, and without one."""
        return self.heard.first if self.heard and number == 0 else None

    def end(self, share: float) -> None:
        """The part of what has read the whole turn."""
        assert self.heard is not None
        self.z = joined(self.z, self.heard.z, share)


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

    def feed(self, pieces: Sequence[Piece], sources: Sequence[Source]) -> Logits:
        """Logits [tokens, heads] of the scored tokens among the pieces' (marks that open a turn have none); a source for each stage."""
        return self.finish(self.start(pieces), sources)

    def finish(self, run: Run, sources: Sequence[Source]) -> Logits:
        """The same of tokens that the screen has read."""
        for number, source in enumerate(sources):
            self.go_on(number, run, source)
        if run.heard:
            assert self._whole is not None
            run.end(self._whole.mix)
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
        own = stage.feed(run.pieces, run.z, run.share, source, run.first(number))
        run.z = mixed(run.z, own, stage.mix)
        run.apart.append(own)
