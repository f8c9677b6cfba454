"""The guard as the loop sees it: a score for each prompt, a threshold and a hash. What trains it is a function of files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.errors import GuardError
from charter.guard.folder import Guard, load, read_record
from charter.guard.pack import pack
from charter.models.calibrate import ViewPolicy
from charter.models.cascade import Cascade
from charter.models.trained import Trained
from charter.records import Exchange
from charter.training.train import Options, Progress, train


class Guarded(Protocol):
    """A trained guard under attack."""

    @property
    def hash(self) -> str:
        """Tells one guard from another."""

    @property
    def threshold(self) -> float:
        """Score from which a prompt is flagged."""

    def scores(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Highest calibrated probability over each prompt: float [exchanges]."""


Trainer = Callable[[Sequence[Path]], Guarded]
"""Trains on the examples and the rounds' rows, in this order; the same files give the same guard."""
Reopen = Callable[[str], Guarded | None]
"""The guard of that hash, where it still stands; None where it must be trained again."""


@dataclass(frozen=True, slots=True)
class CascadeGuard:
    """A guard's prompt view."""

    cascade: Cascade
    policy: ViewPolicy
    hash: str

    @property
    def threshold(self) -> float:
        return self.policy.threshold

    def scores(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Highest probability over all tokens of each prompt: float [exchanges]. What is longer than the context scores 1, because
        a served guard refuses it (it fails closed)."""
        encoder = self.cascade.backbone.encoder
        lengths = [sum(len(piece.ids) for turn in exchange.turns for piece in encoder.turn(turn)) for exchange in exchanges]
        # Like lengths together: a padded batch costs what its longest row does.
        order = sorted((row for row, n in enumerate(lengths) if n <= self.cascade.backbone.context), key=lengths.__getitem__)
        out = np.ones(len(exchanges))
        for row, scored in zip(order, self.cascade.batch([exchanges[row] for row in order]), strict=True):
            out[row] = self.policy.probability(scored.prompt[:, 0]).max()
        return out


def trainer(constitution: Constitution, options: Options, out: Path, progress: Progress = lambda *_: None) -> Trainer:
    """Trains and packs into the guard folder `out`, so that a run that is killed leaves the guard of its last whole round."""

    before: Trained | None = None

    def trained(files: Sequence[Path]) -> Guarded:
        nonlocal before
        before = result = train(files, constitution, options, progress, before)
        pack(result, constitution, out)
        record, digest = read_record(out)
        view = record.views["prompt"]
        return CascadeGuard(result.cascade, ViewPolicy(view.threshold, view.temperature, view.offset), digest)

    return trained


def reopener(out: Path) -> Reopen:
    """Opens the guard folder `out` where it holds the guard that is asked for."""

    def reopen(digest: str) -> Guarded | None:
        try:
            if read_record(out)[1] != digest:
                return None
            return of_guard(load(out))
        except GuardError:
            return None

    return reopen


def of_guard(guard: Guard) -> CascadeGuard:
    """A loaded guard, as fast and as exact as it was right after its training."""
    guard.cascade.hurry()
    return CascadeGuard(guard.cascade, guard.policies["prompt"], guard.hash)
