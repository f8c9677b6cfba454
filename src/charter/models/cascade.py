"""The scorer of a guard: screen, probe and perhaps a value head, one after the other, on every token of a conversation.

    session = cascade.open(turns)            # session.opening: the scores of the conversation so far, by the prompt view
    scores = session.push(text)              # the reply, by the views that judge one: only tokens that are final
    scores += session.flush()                # the open segment, and the mark that ends the turn

`cascade.batch` gives the same scores for whole exchanges, many at a time. Both paths run the same arithmetic on the same tokens.
The screen reads everything; each later stage may wait until those before it find something suspicious (`stage`).
The exchange view reads on where the conversation ends. The reply view must not see that, so it is a second sequence, which begins
with the reply.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.encoder import Encoder, Piece
from charter.models.lanes import BATCH_TOKENS, Lane, Member, ids, judged, reach_of, states_of
from charter.models.overlap import MOST
from charter.models.probe import Probe
from charter.models.scored import Score, Scored
from charter.models.screen import Screen
from charter.models.segments import Segmenter
from charter.models.stage import ALWAYS, Source, Stage, along
from charter.models.turn import Logits, Run, TurnScorer
from charter.models.value_head import ValueHead
from charter.models.whole import Whole
from charter.records import REPLY_VIEWS, Exchange, Turn, View


@dataclass(frozen=True, slots=True)
class Cascade:
    """The scorer of a guard: (1 - a) * screen + a * probe, with a chosen on the dev split for each view; then a value head on top.

    Where a sentence encoder takes part, it comes last, at the end of each of the prompt's turns (`whole`).
    """

    clauses: tuple[str, ...]
    backbone: Backbone
    probe: Probe
    screen: Screen
    mix: Mapping[View, float]
    """The probe's share a."""
    escalate: Mapping[View, float] = field(default_factory=lambda: {"prompt": ALWAYS, "exchange": ALWAYS, "reply": ALWAYS})
    """The screen's logit from which the backbone is run at all."""
    head: Stage | None = None
    """A value head, which follows on the mix of screen and probe."""
    whole: Whole | None = None
    """A sentence encoder, which reads whole turns of the prompt."""

    @property
    def views(self) -> tuple[View, ...]:
        """The views that it was trained for."""
        return tuple(self.mix)

    @property
    def reply_views(self) -> tuple[View, ...]:
        """Those that judge a reply, the exchange view first."""
        return tuple(view for view in REPLY_VIEWS if view in self.mix)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What follows the screen, in order."""
        first = Stage(self.probe, self.backbone, self.mix, self.escalate, gradual=True)
        return (first,) if self.head is None else (first, self.head)

    @property
    def readers(self) -> dict[str, float]:
        """What follows the screen, in order, and its FLOPs for a token that it reads (of a sentence encoder, one of its own)."""
        found = {name: stage.flops_per_token for name, stage in zip(("probe", "value head"), self.stages, strict=False)}
        return found | ({"sentence encoder": self.whole.flops_per_token} if self.whole else {})

    def with_head(self, head: ValueHead, mix: Mapping[View, float], escalate: Mapping[View, float]) -> Cascade:
        """The same with a value head on top."""
        return replace(self, head=Stage(head, head.backbone, mix, escalate, gradual=False))

    def reading_all(self) -> Cascade:
        """The same with every stage reading every token."""
        always: dict[View, float] = dict.fromkeys(self.mix, ALWAYS)
        whole = self.whole and replace(self.whole, escalate=ALWAYS)
        return replace(self, escalate=always, head=self.head and replace(self.head, escalate=always), whole=whole)

    def hurry(self) -> None:
        """`Backbone.hurry` for every stage, and the sentence encoder likewise. For training only."""
        for stage in self.stages:
            stage.backbone.hurry()
        if self.whole:
            self.whole.encoder.hurry()

    def pack(self) -> None:
        """`Backbone.pack` for every stage, and the sentence encoder likewise."""
        for stage in self.stages:
            stage.backbone.pack()
        if self.whole:
            self.whole.encoder.pack()

    def hear(self, runs: Sequence[Run]) -> None:
        """Let the sentence encoder read turns of the prompt that the screen has read; nothing where there is none."""
        if self.whole and runs:
            for run, heard in zip(runs, self.whole.hear([run.pieces for run in runs], [run.z for run in runs]), strict=True):
                run.heard = heard

    def open(self, turns: Sequence[Turn]) -> Session:
        """A session on a conversation; its `opening` holds the scores of all its turns."""
        return Session(self, turns)

    @property
    def longest(self) -> int:
        """Tokens of the longest exchange that `batch` scores."""
        return max(MOST, *(stage.backbone.context for stage in self.stages))

    def length(self, exchange: Exchange) -> int:
        """Tokens of a whole exchange, marks included."""
        return sum(len(p.ids) for turn in exchange.turns for p in self.backbone.encoder.turn(turn))

    def batch(self, exchanges: Iterable[Exchange], batch_tokens: int = BATCH_TOKENS, prompts: bool = True) -> Iterator[Scored]:
        """Score whole exchanges, in order, a padded batch at a time; memory does not grow with their number.

        One that is longer than the context is read in overlapping windows (`overlap`; `Scored.windowed`), where a session refuses it.

        Args:
            prompts: whether the prompt before a reply is scored too, which the exchange is not judged by (`Scored.judged`).

        Raises:
            BackboneError: an exchange is longer than `longest`.
        """
        for group in self._groups(exchanges, batch_tokens, self.views, prompts):
            read = self._pass([member.conversation for member in group]), self._pass([member.alone for member in group])
            for member, first, second in zip(group, *read, strict=True):
                yield self._scored(member, tuple(a + b for a, b in zip(first, second, strict=True)))

    def apart(self, exchanges: Iterable[Exchange], view: View = "exchange", batch_tokens: int = BATCH_TOKENS) -> Iterator[list[Run]]:
        """The turns that a view reads of whole exchanges, with each stage's own logits; in order."""
        own = self if view == "prompt" else replace(self, whole=None)  # which nothing asks about a prompt that is only what a reply follows
        for group in own._groups(exchanges, batch_tokens, (view,), prompts=True):
            lanes = [member.alone if view == "reply" else member.conversation for member in group]
            own._pass(lanes)
            yield from ([run for _, run in lane] for lane in lanes)

    def _pass(self, lanes: Sequence[Lane]) -> list[tuple[int, ...]]:
        """Take the turns of sequences through all stages, in place; returns how many tokens of each sequence each stage has read."""
        read: list[tuple[int, ...]] = [()] * len(lanes)
        self.hear([run for lane in lanes for run in judged(lane) if run.view == "prompt"])
        for number, stage in enumerate(self.stages):
            lengths = [reach_of(lane, stage, number) for lane in lanes]
            states = states_of(stage.backbone, [ids(lane)[:n] for lane, n in zip(lanes, lengths, strict=True)])
            for row, (lane, own) in enumerate(zip(lanes, states, strict=True)):
                source = Source(along(own), self.longest)
                for scorer, run in lane:
                    if scorer:
                        scorer.go_on(number, run, source)
                    else:
                        source.add([i for piece in run.pieces for i in piece.ids])
                read[row] += (lengths[row],)
        if self.whole:
            for row, lane in enumerate(lanes):
                ended = [run for run in judged(lane) if run.heard]
                for run in ended:
                    run.end(self.whole.mix)
                read[row] += (sum(run.heard.read for run in ended if run.heard),)
        return read

    def _scored(self, member: Member, read: tuple[int, ...]) -> Scored:
        none = np.empty((0, 1 + len(self.clauses)), np.float32)
        scores: dict[View, list[Logits]] = {"prompt": [none], "exchange": [none], "reply": [none]}
        texts: dict[View, list[str]] = {"prompt": [], "exchange": [], "reply": []}
        for run in judged([*member.conversation, *member.alone]):
            scores[run.view].append(run.z)
            texts[run.view] += [t for p in run.pieces if p.text is not None for t in self.backbone.encoder.texts(p)]
        replies = {view: np.concatenate(scores[view]) for view in self.reply_views if member.exchange.reply is not None}
        lanes = member.conversation if "exchange" in self.mix else (*member.conversation, *member.alone)
        tokens = sum(len(p.ids) for _, run in lanes for p in run.pieces)
        return Scored(
            member.exchange, np.concatenate(scores["prompt"]), tuple(texts["prompt"]), replies.get("exchange"),
            tuple(texts[self.reply_views[0]]) if replies else (), tokens, read, replies.get("reply"),
            max(len(ids(member.conversation)), len(ids(member.alone))) > min(stage.backbone.context for stage in self.stages),
        )  # fmt: skip

    def _groups(self, exchanges: Iterable[Exchange], batch_tokens: int, views: Sequence[View], prompts: bool) -> Iterator[list[Member]]:
        group: list[Member] = []
        longest = 0
        for exchange in exchanges:
            member = self._member(exchange, views, prompts)
            if max(len(ids(member.conversation)), len(ids(member.alone))) > self.longest:
                raise BackboneError(f"the exchange {exchange.id} is longer than {self.longest:,} tokens, more than is read in windows")
            length = max(len(ids(member.conversation)), len(ids(member.alone)))
            if group and max(longest, length) * (len(group) + 1) > batch_tokens:
                yield group
                group, longest = [], 0
            group.append(member)
            longest = max(longest, length)
        if group:
            yield group

    def _member(self, exchange: Exchange, views: Sequence[View], prompts: bool) -> Member:
        """The sequences of an exchange that these views read."""
        encoder = self.backbone.encoder
        start = self.start if prompts or exchange.reply is None else self._past
        prompt: Lane = [start("prompt", pieces) for pieces in encoder.prompt(exchange.prompt)]
        replies: dict[View, Lane] = {v: [self.start(v, encoder.turn(t)) for t in exchange.seen("reply")] for v in views if v != "prompt"}
        return Member(exchange, prompt + replies.get("exchange", []), replies.get("reply", []))

    def _past(self, view: View, pieces: Sequence[Piece]) -> tuple[None, Run]:
        """A turn that nobody judges."""
        none = np.empty((0, 1 + len(self.clauses)), np.float32)
        return None, Run(view, pieces, none[:, 0], none, [])

    def start(self, view: View, pieces: Sequence[Piece]) -> tuple[TurnScorer, Run]:
        """A turn's scorer, and its first tokens as far as the screen has read them."""
        scorer = TurnScorer(self, view)
        return scorer, scorer.start(pieces)


class Session:
    """One conversation: its turns scored at once, then a reply as it comes."""

    def __init__(self, cascade: Cascade, turns: Sequence[Turn]) -> None:
        self._cascade = cascade
        self._encoder: Encoder = cascade.backbone.encoder
        self._sources, self._alone = (
            [Source(stage.backbone.stream().feed, stage.backbone.context) for stage in cascade.stages] for _ in range(2)
        )
        self._segmenter = Segmenter()
        self.tokens = 0
        """All of the conversation so far, marks included."""
        self.opening: list[Score] = []
        lane = [cascade.start("prompt", pieces) for pieces in self._encoder.prompt(turns)]
        cascade.hear([run for _, run in lane])
        for scorer, run in lane:
            self.opening += self._scores(run.pieces, {"prompt": scorer.finish(run, self._sources)})
        self._heard = tuple([sum(run.heard.read for _, run in lane if run.heard)] if cascade.whole else [])
        self._replies: dict[View, TurnScorer] = {}

    @property
    def read(self) -> tuple[int, ...]:
        """How many tokens each stage after the screen has read, and last a sentence encoder; what two views read counts twice."""
        return (*(first.read + second.read for first, second in zip(self._sources, self._alone, strict=True)), *self._heard)

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
        if not self._replies:
            self._replies = {view: TurnScorer(self._cascade, view) for view in self._cascade.reply_views}
            pieces = [self._encoder.opening("assistant"), *pieces]
        return self._feed(self._replies, pieces)

    def _feed(self, scorers: Mapping[View, TurnScorer], pieces: list[Piece]) -> list[Score]:
        z = {view: scorer.feed(pieces, self._alone if view == "reply" else self._sources) for view, scorer in scorers.items()}
        return self._scores(pieces, z)

    def _scores(self, pieces: Sequence[Piece], z: Mapping[View, Logits]) -> list[Score]:
        self.tokens += sum(len(p.ids) for p in pieces)
        texts = [t for p in pieces if p.text is not None for t in self._encoder.texts(p)]
        return [Score(text, {view: own[n] for view, own in z.items()}) for n, text in enumerate(texts)]
