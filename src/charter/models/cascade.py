"""Screen and probe together: one scorer that opens on a conversation, takes a reply as it comes, and scores every token.

    session = cascade.open(turns)            # session.opening: the scores of the conversation so far, by the prompt view
    scores = session.push(text)              # the reply, by the exchange view: only tokens that are final
    scores += session.flush()                # the open segment, and the mark that ends the turn

`cascade.batch` gives the same scores for whole exchanges, many at a time. Both paths run the same arithmetic on the same tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charter.models.backbone import Backbone, Encoder, Piece
from charter.models.probe import WINDOW, Probe
from charter.models.screen import Screen
from charter.models.segments import Segmenter
from charter.records import Exchange, Turn, View

PRIOR = -4.0
"""The logit of a text of which nothing has been read: presumed harmless (odds 1 : 55)."""
BATCH_TOKENS = 2_048
"""Tokens in one padded forward: beyond this a 2-core machine gains nothing."""


ReadTurn = tuple[View, list[Piece], torch.Tensor]
"""A turn as the backbone saw it: the view that judges it, its pieces, hidden states [tokens, layers, width]."""
Group = list[tuple[Exchange, list[list[Piece]]]]


@dataclass(frozen=True, slots=True)
class Score:
    """A token's text and its logits, float32 [heads]: overall, then one for each restricted clause."""

    text: str
    z: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scored:
    """A whole exchange: token texts and logits [tokens, heads] of the conversation and of the reply (None without one)."""

    exchange: Exchange
    prompt: NDArray[np.float32]
    prompt_texts: tuple[str, ...]
    reply: NDArray[np.float32] | None
    reply_texts: tuple[str, ...]

    def logits(self, view: View) -> NDArray[np.float32] | None:
        """Logits [tokens, heads] of one view; None where the exchange has no such part."""
        return self.prompt if view == "prompt" else self.reply


@dataclass(frozen=True, slots=True)
class Cascade:
    """The scorer of a guard: final = a * probe + (1 - a) * screen, with a chosen on the dev split for each view."""

    clauses: tuple[str, ...]
    backbone: Backbone
    probe: Probe
    screen: Screen
    mix: dict[View, float]
    """The probe's share a."""

    def open(self, turns: Sequence[Turn]) -> Session:
        """A session on a conversation; its `opening` holds the scores of all its turns."""
        return Session(self, turns)

    def batch(self, exchanges: Iterable[Exchange], batch_tokens: int = BATCH_TOKENS) -> Iterator[Scored]:
        """Score whole exchanges, in order, a padded batch at a time; memory does not grow with their number.

        Raises:
            BackboneError: an exchange is longer than the context.
        """
        for group in self._groups(exchanges, batch_tokens):
            for (exchange, _), turns in zip(group, self._states(group), strict=True):
                yield self._scored(exchange, turns)

    def read(self, exchanges: Iterable[Exchange], batch_tokens: int = BATCH_TOKENS) -> Iterator[list[ReadTurn]]:
        """The turns of whole exchanges with the view that judges them, their pieces and hidden states; in order."""
        for group in self._groups(exchanges, batch_tokens):
            yield from self._states(group)

    def _states(self, group: Group) -> Iterator[list[ReadTurn]]:
        rows = [[i for turn in turns for piece in turn for i in piece.ids] for _, turns in group]
        together = max(map(len, rows)) <= min(BATCH_TOKENS, self.backbone.context)
        states = self.backbone.batch(rows) if together else None
        for number, ((exchange, turns), row) in enumerate(zip(group, rows, strict=True)):
            # A long exchange goes through a stream: its attention would not fit a padded batch.
            own = states[number] if states is not None else self.backbone.stream().feed(row)
            ends = np.cumsum([sum(len(p.ids) for p in pieces) for pieces in turns]).tolist()
            last: View = "exchange" if exchange.reply is not None else "prompt"
            earlier: View = "prompt"
            views = [earlier] * (len(turns) - 1) + [last]
            yield [(view, pieces, own[a:b]) for view, pieces, a, b in zip(views, turns, [0, *ends], ends, strict=False)]

    def _scored(self, exchange: Exchange, turns: list[ReadTurn]) -> Scored:
        none = np.empty((0, 1 + len(self.clauses)), np.float32)
        scores: dict[View, list[NDArray[np.float32]]] = {"prompt": [none], "exchange": [none]}
        texts: dict[View, list[str]] = {"prompt": [], "exchange": []}
        for view, pieces, states in turns:
            scores[view].append(TurnScorer(self, view).feed(pieces, states))
            texts[view] += [t for p in pieces if p.text is not None for t in self.backbone.encoder.texts(p)]
        reply = np.concatenate(scores["exchange"]) if exchange.reply is not None else None
        return Scored(exchange, np.concatenate(scores["prompt"]), tuple(texts["prompt"]), reply, tuple(texts["exchange"]))

    def _groups(self, exchanges: Iterable[Exchange], batch_tokens: int) -> Iterator[Group]:
        group: Group = []
        longest = 0
        for exchange in exchanges:
            turns = [self.backbone.encoder.turn(turn) for turn in exchange.turns]
            length = sum(len(p.ids) for pieces in turns for p in pieces)
            if group and max(longest, length) * (len(group) + 1) > batch_tokens:
                yield group
                group, longest = [], 0
            group.append((exchange, turns))
            longest = max(longest, length)
        if group:
            yield group


class TurnScorer:
    """The running state over one turn: the screen's sums, the probe's average, and the count of tokens read."""

    def __init__(self, cascade: Cascade, view: View) -> None:
        self._mix = cascade.mix[view]
        self._probe, self._screen = cascade.probe.turn(view), cascade.screen.turn(view)
        self._read = 0

    def feed(self, pieces: Sequence[Piece], states: torch.Tensor) -> NDArray[np.float32]:
        """Logits [tokens, heads] of the scored tokens among the pieces' (marks that open a turn have none); `states` covers all.

        Until a window is full the logit is drawn towards the prior in proportion; the mark that ends a turn counts in full.
        """
        probe, screen, share = self.apart(pieces, states)
        mixed = self._mix * probe + (1 - self._mix) * screen
        return np.asarray(PRIOR + share[:, None] * (mixed - PRIOR), np.float32)

    def apart(self, pieces: Sequence[Piece], states: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The two scorers' logits [tokens, heads] before mixing, and the share [tokens] with which they count against the prior."""
        scored = [p for p in pieces if p.text is not None]
        keep = np.repeat([p.text is not None for p in pieces], [len(p.ids) for p in pieces])
        probe = self._probe.push(states[torch.from_numpy(keep)])
        screen = self._screen.feed(scored)
        share = np.minimum(1.0, (self._read + 1 + np.arange(len(probe))) / WINDOW).astype(np.float32)
        share[np.repeat([p.text == "" for p in scored], [len(p.ids) for p in scored])] = 1.0
        self._read += len(probe)
        return probe, screen, share


class Session:
    """One conversation: its turns scored at once, then a reply as it comes."""

    def __init__(self, cascade: Cascade, turns: Sequence[Turn]) -> None:
        self._cascade = cascade
        self._encoder: Encoder = cascade.backbone.encoder
        self._stream = cascade.backbone.stream()
        self._segmenter = Segmenter()
        self.opening: list[Score] = []
        for turn in turns:
            self.opening += self._feed(TurnScorer(cascade, "prompt"), self._encoder.turn(turn))
        self._reply: TurnScorer | None = None

    @property
    def held(self) -> str:
        """Text received and not yet scored: the open segment."""
        return self._segmenter.held

    def push(self, text: str) -> list[Score]:
        """Take a piece of the reply; returns the scores of the tokens that are now final."""
        return self._take([Piece(self._encoder.segment(s), s) for s in self._segmenter.push(text)])

    def flush(self) -> list[Score]:
        """The reply has ended; returns the scores of the open segment and of the mark that ends the turn (its text is "")."""
        return self._take([*(Piece(self._encoder.segment(s), s) for s in self._segmenter.flush()), self._encoder.ending()])

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        """A copy that goes on by itself from here; the model and the scorers' weights are shared with it, the cached keys are not."""
        cascade, screen = self._cascade, self._cascade.screen
        shared = (cascade, self._encoder, cascade.backbone, cascade.probe, *screen.weights.values(), *screen.biases.values())
        memo.update({id(part): part for part in shared})
        twin = object.__new__(Session)
        with torch.inference_mode():
            twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def _take(self, pieces: list[Piece]) -> list[Score]:
        if not pieces:
            return []
        if self._reply is None:
            self._reply = TurnScorer(self._cascade, "exchange")
            pieces = [self._encoder.opening("assistant"), *pieces]
        return self._feed(self._reply, pieces)

    def _feed(self, scorer: TurnScorer, pieces: list[Piece]) -> list[Score]:
        z = scorer.feed(pieces, self._stream.feed([i for p in pieces for i in p.ids]))
        texts = [t for p in pieces if p.text is not None for t in self._encoder.texts(p)]
        return [Score(text, row) for text, row in zip(texts, z, strict=True)]
