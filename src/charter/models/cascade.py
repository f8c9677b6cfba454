"""The scorer of a guard: screen, probe and perhaps a value head, one after the other, on every token of a conversation.

    session = cascade.open(turns)            # session.opening: the scores of the conversation so far, by the prompt view
    scores = session.push(text)              # the reply, by the exchange view: only tokens that are final
    scores += session.flush()                # the open segment, and the mark that ends the turn

`cascade.batch` gives the same scores for whole exchanges, many at a time. Both paths run the same arithmetic on the same tokens.
The screen reads everything; each later stage may wait until those before it find something suspicious (`stage`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from charter.models.backbone import Backbone, Encoder, Piece
from charter.models.probe import WINDOW, Probe
from charter.models.screen import Screen
from charter.models.segments import Segmenter
from charter.models.stage import ALWAYS, Source, Stage, StageTurn, along, escalated, mixed, out_of_the_prior
from charter.models.value_head import ValueHead
from charter.records import Exchange, Turn, View

BATCH_TOKENS = 2_048
"""Tokens in one padded forward: beyond this a 2-core machine gains nothing."""

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Score:
    """A token's text and its logits, float32 [heads]: overall, then one for each restricted clause."""

    text: str
    z: Logits


@dataclass(frozen=True, slots=True)
class Scored:
    """A whole exchange: token texts and logits [tokens, heads] of the conversation and of the reply (None without one)."""

    exchange: Exchange
    prompt: Logits
    prompt_texts: tuple[str, ...]
    reply: Logits | None
    reply_texts: tuple[str, ...]
    tokens: int
    """All of the conversation, marks included."""
    read: tuple[int, ...]
    """How many of them each stage after the screen has read."""

    def logits(self, view: View) -> Logits | None:
        """Logits [tokens, heads] of one view; None where the exchange has no such part."""
        return self.prompt if view == "prompt" else self.reply


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


@dataclass(frozen=True, slots=True)
class Cascade:
    """The scorer of a guard: (1 - a) * screen + a * probe, with a chosen on the dev split for each view; then a value head on top."""

    clauses: tuple[str, ...]
    backbone: Backbone
    probe: Probe
    screen: Screen
    mix: Mapping[View, float]
    """The probe's share a."""
    escalate: Mapping[View, float] = field(default_factory=lambda: {"prompt": ALWAYS, "exchange": ALWAYS})
    """The screen's logit from which the backbone is run at all."""
    head: Stage | None = None
    """A value head, which follows on the mix of screen and probe."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What follows the screen, in order."""
        first = Stage(self.probe, self.backbone, self.mix, self.escalate, gradual=True)
        return (first,) if self.head is None else (first, self.head)

    def with_head(self, head: ValueHead, mix: Mapping[View, float], escalate: Mapping[View, float]) -> Cascade:
        """The same with a value head on top."""
        return replace(self, head=Stage(head, head.backbone, mix, escalate, gradual=False))

    def reading_all(self) -> Cascade:
        """The same with every stage reading every token."""
        always: dict[View, float] = {"prompt": ALWAYS, "exchange": ALWAYS}
        return replace(self, escalate=always, head=self.head and replace(self.head, escalate=always))

    def hurry(self) -> None:
        """`Backbone.hurry` for every stage. For training only."""
        for stage in self.stages:
            stage.backbone.hurry()

    def open(self, turns: Sequence[Turn]) -> Session:
        """A session on a conversation; its `opening` holds the scores of all its turns."""
        return Session(self, turns)

    def length(self, exchange: Exchange) -> int:
        """Tokens of a whole exchange, marks included."""
        return sum(len(p.ids) for turn in exchange.turns for p in self.backbone.encoder.turn(turn))

    def batch(self, exchanges: Iterable[Exchange], batch_tokens: int = BATCH_TOKENS) -> Iterator[Scored]:
        """Score whole exchanges, in order, a padded batch at a time; memory does not grow with their number.

        Raises:
            BackboneError: an exchange is longer than the context.
        """
        for group in self._groups(exchanges, batch_tokens):
            for (exchange, runs), read in zip(group, self._pass(group), strict=True):
                yield self._scored(exchange, [run for _, run in runs], read)

    def apart(self, exchanges: Iterable[Exchange], batch_tokens: int = BATCH_TOKENS) -> Iterator[list[Run]]:
        """The turns of whole exchanges with each stage's own logits; in order."""
        for group in self._groups(exchanges, batch_tokens):
            self._pass(group)
            yield from ([run for _, run in runs] for _, runs in group)

    def _pass(self, group: Group) -> list[tuple[int, ...]]:
        """Take the turns of a group through all stages, in place; returns how many tokens of each exchange each stage has read."""
        read: list[tuple[int, ...]] = [()] * len(group)
        for number, stage in enumerate(self.stages):
            lengths = [_reach(runs, stage) for _, runs in group]
            states = _states(stage.backbone, [ids[:n] for ids, n in zip(map(_ids, group), lengths, strict=True)])
            for row, ((_, runs), own) in enumerate(zip(group, states, strict=True)):
                source = Source(along(own), stage.backbone.context)
                for scorer, run in runs:
                    scorer.go_on(number, run, source)
                read[row] += (lengths[row],)
        return read

    def _scored(self, exchange: Exchange, runs: Sequence[Run], read: tuple[int, ...]) -> Scored:
        none = np.empty((0, 1 + len(self.clauses)), np.float32)
        scores: dict[View, list[Logits]] = {"prompt": [none], "exchange": [none]}
        texts: dict[View, list[str]] = {"prompt": [], "exchange": []}
        for run in runs:
            scores[run.view].append(run.z)
            texts[run.view] += [t for p in run.pieces if p.text is not None for t in self.backbone.encoder.texts(p)]
        reply = np.concatenate(scores["exchange"]) if exchange.reply is not None else None
        tokens = sum(len(p.ids) for run in runs for p in run.pieces)
        return Scored(
            exchange, np.concatenate(scores["prompt"]), tuple(texts["prompt"]), reply, tuple(texts["exchange"]), tokens, read
        )  # fmt: skip

    def _groups(self, exchanges: Iterable[Exchange], batch_tokens: int) -> Iterator[Group]:
        group: Group = []
        longest = 0
        for exchange in exchanges:
            turns = [self.backbone.encoder.turn(turn) for turn in exchange.turns]
            length = sum(len(p.ids) for pieces in turns for p in pieces)
            if group and max(longest, length) * (len(group) + 1) > batch_tokens:
                yield group
                group, longest = [], 0
            group.append((exchange, [self._start(view, pieces) for view, pieces in zip(_views(exchange), turns, strict=True)]))
            longest = max(longest, length)
        if group:
            yield group

    def _start(self, view: View, pieces: Sequence[Piece]) -> tuple[TurnScorer, Run]:
        scorer = TurnScorer(self, view)
        return scorer, scorer.start(pieces)


class TurnScorer:
    """The running state of every stage over one turn.

    Until a window is full, screen and probe are drawn towards the prior in proportion; the mark that ends a turn counts in full.
    """

    def __init__(self, cascade: Cascade, view: View) -> None:
        self._view = view
        self._screen = cascade.screen.turn(view)
        self._stages = [StageTurn(stage, view) for stage in cascade.stages]
        self._read = 0

    def feed(self, pieces: Sequence[Piece], sources: Sequence[Source]) -> Logits:
        """Logits [tokens, heads] of the scored tokens among the pieces' (marks that open a turn have none); a source for each stage."""
        run = self.start(pieces)
        for number, source in enumerate(sources):
            self.go_on(number, run, source)
        return run.z

    def start(self, pieces: Sequence[Piece]) -> Run:
        """The screen's part."""
        scored = [p for p in pieces if p.text is not None]
        z = self._screen.feed(scored)
        share = np.minimum(1.0, (self._read + 1 + np.arange(len(z))) / WINDOW).astype(np.float32)
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


class Session:
    """One conversation: its turns scored at once, then a reply as it comes."""

    def __init__(self, cascade: Cascade, turns: Sequence[Turn]) -> None:
        self._cascade = cascade
        self._encoder: Encoder = cascade.backbone.encoder
        self._sources = [Source(stage.backbone.stream().feed, stage.backbone.context) for stage in cascade.stages]
        self._segmenter = Segmenter()
        self.tokens = 0
        """All of the conversation so far, marks included."""
        self.opening: list[Score] = []
        for turn in turns:
            self.opening += self._feed(TurnScorer(cascade, "prompt"), self._encoder.turn(turn))
        self._reply: TurnScorer | None = None

    @property
    def read(self) -> tuple[int, ...]:
        """How many tokens each stage after the screen has read."""
        return tuple(source.read for source in self._sources)

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
        cascade = self._cascade
        shared: list[Any] = [cascade, self._encoder, *cascade.probe.hidden.values()]
        shared += [*cascade.screen.weights.values(), *cascade.screen.biases.values()]
        for stage in cascade.stages:
            shared += [stage.backbone, stage.reader, *stage.reader.weights.values(), *stage.reader.biases.values()]
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
        z = scorer.feed(pieces, self._sources)
        self.tokens += sum(len(p.ids) for p in pieces)
        texts = [t for p in pieces if p.text is not None for t in self._encoder.texts(p)]
        return [Score(text, row) for text, row in zip(texts, z, strict=True)]


Group = list[tuple[Exchange, list[tuple[TurnScorer, Run]]]]
"""Exchanges that are scored together, each with its turns."""


def _views(exchange: Exchange) -> list[View]:
    """The view that judges each turn."""
    last: View = "exchange" if exchange.reply is not None else "prompt"
    return [*(["prompt"] * (len(exchange.turns) - 1)), last]  # type: ignore[list-item]


def _ids(member: tuple[Exchange, list[tuple[TurnScorer, Run]]]) -> list[int]:
    return [i for _, run in member[1] for piece in run.pieces for i in piece.ids]


def _reach(runs: Sequence[tuple[TurnScorer, Run]], stage: Stage) -> int:
    """How many tokens of an exchange a stage has to read: up to the end of the last turn that is escalated."""
    reach = end = 0
    for _, run in runs:
        end += sum(len(piece.ids) for piece in run.pieces)
        theta = stage.escalate[run.view]
        if theta == ALWAYS or escalated(run.z, theta).any():
            reach = end
    return reach


def _states(backbone: Backbone, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Hidden states [tokens, layers, width] of token sequences, in one padded forward where they are short; of none, nothing."""
    nothing = torch.empty(0, len(backbone.layers), backbone.width)
    longest = max(map(len, rows))
    if longest > min(BATCH_TOKENS, backbone.context):
        # A long exchange goes through a stream: its attention would not fit a padded batch.
        return [backbone.stream().feed(row) if row else nothing for row in rows]
    asked = [number for number, row in enumerate(rows) if row]
    states = backbone.batch([rows[number] for number in asked]) if asked else None
    out = [nothing] * len(rows)
    for at, number in enumerate(asked):
        assert states is not None
        out[number] = states[at, : len(rows[number])]
    return out
