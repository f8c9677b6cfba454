"""A stage of the cascade that reads a backbone: when it is asked, and the states that it has read.

    z_t = (1 - a) z'_t + a s_t        z' what the stages before it make of token t, s its own logit, or PRIOR where it is not asked

It is asked from the token of a turn at which z' (overall head) first reaches the view's escalation threshold theta_1. Then it reads the
conversation so far, once, and goes on token by token. So its logits are those that it would give had it read along from the
start, and which tokens are escalated follows from the text alone, not from the pieces in which it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.encoder import Piece
from charter.records import View

PRIOR = -4.0
"""The logit of a text of which nothing has been read: presumed harmless (odds 1 : 55)."""
ALWAYS = -np.inf
"""The escalation threshold of a stage that reads everything."""


class ReaderTurn(Protocol):
    """A reader's running state over one turn."""

    def push(self, states: Tensor) -> NDArray[np.float32]:
        """States [tokens, layers, width] of the turn's next scored tokens to logits [tokens, heads]."""
        ...


class Reader(Protocol):
    """What turns hidden states into logits: a probe or a value head."""

    @property
    def weights(self) -> Mapping[View, NDArray[np.float32]]: ...

    @property
    def biases(self) -> Mapping[View, NDArray[np.float32]]: ...

    @property
    def flops_per_token(self) -> float: ...

    def turn(self, view: View) -> ReaderTurn:
        """The state for a new turn."""
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """A reader, its share of the logit, and when it is asked."""

    reader: Reader
    backbone: Backbone
    mix: Mapping[View, float]
    """Its share a."""
    escalate: Mapping[View, float]
    """theta_1, a logit of the stages before it."""
    gradual: bool
    """Whether its logits grow out of the prior over the first tokens of a turn, as the screen's do."""

    @property
    def flops_per_token(self) -> float:
        """Of backbone and reader together."""
        return self.backbone.flops_per_token + self.reader.flops_per_token


class Source:
    """The states of one conversation: computed only when they are asked for, and none of them twice."""

    def __init__(self, feed: Callable[[Sequence[int]], Tensor], context: int) -> None:
        """`feed` takes the ids that follow the last ones it got and gives their states."""
        self._feed, self._context = feed, context
        self._unread: list[int] = []
        self.read = 0
        """Tokens whose states have been computed."""

    def add(self, ids: Sequence[int]) -> None:
        """Tokens that may have to be read.

        Raises:
            BackboneError: the context would overflow, whether they are ever read or not. Nothing is cut silently.
        """
        if self.read + len(self._unread) + len(ids) > self._context:
            raise BackboneError(f"the conversation is longer than the backbone's context of {self._context:,} tokens")
        self._unread += ids

    def catch_up(self) -> Tensor:
        """States [tokens, layers, width] of all that was added and not yet read."""
        ids, self._unread = self._unread, []
        states = self._feed(ids)
        self.read += len(ids)
        return states


def along(states: Tensor) -> Callable[[Sequence[int]], Tensor]:
    """A `feed` that hands out the states of a sequence that has been read already."""
    at = 0

    def feed(ids: Sequence[int]) -> Tensor:
        nonlocal at
        at += len(ids)
        return states[at - len(ids) : at]

    return feed


class StageTurn:
    """A stage over one turn: silent until the stages before it reach its threshold."""

    def __init__(self, stage: Stage, view: View) -> None:
        self._turn = stage.reader.turn(view)
        self._theta, self.mix, self._gradual = stage.escalate[view], stage.mix[view], stage.gradual
        self._asked = self._theta == ALWAYS
        self._scored: list[bool] = []  # for each token of the turn that is not read yet, whether it is scored

    def feed(
        self,
        pieces: Sequence[Piece],
        below: NDArray[np.float32],
        share: NDArray[np.float32],
        source: Source,
        first: float | None = None,
    ) -> NDArray[np.float32]:
        """Its logits [tokens, heads] of the scored tokens among the pieces'; `below` and `share` [tokens] are those of the same tokens.

        Args:
            first: a first impression of the whole turn, which then decides in place of its tokens whether it is asked about all of it.
        """
        source.add([i for p in pieces for i in p.ids])
        self._scored += [p.text is not None for p in pieces for _ in p.ids]
        reached = escalated(below if first is None else np.full_like(below, first), self._theta) | self._asked
        self._asked = bool(reached.any()) or self._asked
        if not self._asked:
            return np.full_like(below, PRIOR)
        states = source.catch_up()[-len(self._scored) :]
        own = self._turn.push(states[torch.tensor(self._scored, dtype=torch.bool)])
        self._scored = []
        own = own[len(own) - len(below) :]
        if self._gradual:
            own = out_of_the_prior(own, share)
        return np.where(reached[:, None], own, np.float32(PRIOR)).astype(np.float32)


def escalated(below: NDArray[np.float32], theta: float) -> NDArray[np.bool_]:
    """The tokens of a turn from the first one on whose overall logit reaches theta: bool [tokens]. What is no number reaches it."""
    reached: NDArray[np.bool_] = np.logical_or.accumulate(~(below[:, 0] < theta))
    return reached


def out_of_the_prior(z: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits [tokens, heads] drawn towards the prior where they count in part: share [tokens]."""
    return np.asarray(PRIOR + share[:, None] * (z - PRIOR), np.float32)


def mixed(below: NDArray[np.float32], own: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """(1 - share) below + share own."""
    return np.asarray(below + np.float32(share) * (own - below), np.float32)
