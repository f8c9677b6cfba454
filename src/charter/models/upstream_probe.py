"""A conversation scored on the activations of the model that answers it: no second forward.

It has the face of `cascade.Session`. The screen reads the same segments of text; a token is scored once its segment is complete,
with the logit of its own state. The model reads its own chat template and its own tokens, where the guard would encode segment by
segment with disguises undone, so the scores differ from those of the guard's own pass.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from charter.errors import BackboneError
from charter.models.cascade import Cascade, Session
from charter.models.chat_format import Aligned
from charter.models.encoder import Piece
from charter.models.generation import Generation, Generator, Sampling, Token
from charter.models.scored import Score
from charter.models.stage import Source, along
from charter.models.turn import TurnScorer
from charter.records import Turn, View


class UpstreamSession:
    """One conversation: its turns scored in the prefill, then the reply as the model writes it."""

    def __init__(self, cascade: Cascade, turns: Sequence[Turn]) -> None:
        """Prefill.

        Args:
            cascade: its backbone is a `Generator`; it has no value head, which reads other weights, and no reply view, which must not
                see the prompt that the model has read.

        Raises:
            BackboneError: the conversation doesn't fit the model's template or context.
        """
        assert isinstance(cascade.backbone, Generator)
        assert cascade.head is None
        assert "reply" not in cascade.views
        self._cascade, self._turns = cascade, turns
        self.generation: Generation = cascade.backbone.start(turns)
        self.opening: list[Score] = []
        spoken = [(*cascade.start("prompt", pieces), states) for pieces, states in self.generation.turns]
        cascade.hear([run for _, run, _ in spoken])
        for scorer, run, states in spoken:
            pieces = run.pieces
            texts = [text for p in pieces if p.text is not None for text in [*[""] * (len(p.ids) - 1), p.text][: len(p.ids)]]
            source = Source(along(states), cascade.backbone.context)
            self.opening += [Score(text, {"prompt": z}) for text, z in zip(texts, scorer.finish(run, [source]), strict=True)]
        self._scorer = TurnScorer(cascade, "exchange")
        self._states: list[Tensor] = []
        self._source = Source(self._unread, cascade.backbone.context)
        self._segments = Aligned[Token]()
        self._written: deque[Token] = deque()
        self._came = ""
        self._begun = False
        self._own: Session | None = None

    def write(self, sampling: Sampling) -> Iterator[str]:
        """The reply as the model writes it, unscored: what is given is for `push`. Closing the iterator ends the reply."""
        self._begun = True
        for token in self.generation.tokens(sampling):
            self._written.append(token)
            if token.text:
                yield token.text

    def push(self, text: str) -> list[Score]:
        """Take a piece of the reply; returns the scores of the tokens that are now final.

        A reply that the model does not write here (nobody asked it to) is scored by the guard's own pass.

        Raises:
            BackboneError: it is not what the model wrote.
        """
        if not self._begun:
            self._own = self._own or Session(self._cascade, self._turns)
            return self._own.push(text)
        self._came += text
        found = []
        while self._written and not self._written[0].ends and len(self._written[0].text) <= len(self._came):
            token = self._written.popleft()
            found += self._segments.push(self._taken(token), token)
        return self._score(found)

    def flush(self) -> list[Score]:
        """The reply has ended; returns the scores of the open segment, and of the mark that ends the turn if the model came to it.

        Raises:
            BackboneError: as `push`.
        """
        if not self._begun:
            self._own = self._own or Session(self._cascade, self._turns)
            return self._own.flush()
        scores = self.push("")
        end = self._written.popleft() if self._written and self._written[0].ends else None
        scores += self._score(self._segments.flush(self._taken(end) if end else ""))
        if self._came:
            raise BackboneError("the reply is not what the model wrote, so it can't be scored on its activations")
        if end:
            self._states.append(end.states)
            scores += _scores("exchange", self._scorer, [Piece((end.id,), "")], self._source, [""])
        return scores

    def __deepcopy__(self, memo: dict[int, Any]) -> UpstreamSession:
        """A copy that goes on by itself from here. A reply that is written here has one reader and can't be copied."""
        assert not self._begun
        twin = copy.copy(self)
        twin._own = copy.deepcopy(self._own, memo)
        return twin

    def _unread(self, ids: Sequence[int]) -> Tensor:
        """States of the reply's next tokens, which its generation has left here. Below an escalation threshold they wait."""
        states, self._states = self._states[: len(ids)], self._states[len(ids) :]
        return torch.stack(states)

    def _taken(self, token: Token) -> str:
        """A token's text, off what came."""
        if not self._came.startswith(token.text):
            raise BackboneError("the reply is not what the model wrote, so it can't be scored on its activations")
        self._came = self._came[len(token.text) :]
        return token.text

    def _score(self, found: Sequence[tuple[str, Sequence[tuple[str, Token]]]]) -> list[Score]:
        if not found:
            return []
        pieces = [Piece(tuple(token.id for _, token in tokens), segment) for segment, tokens in found]
        told = [pair for _, tokens in found for pair in tokens]
        self._states += [token.states for _, token in told]
        return _scores("exchange", self._scorer, pieces, self._source, [text for text, _ in told])


def _scores(view: View, scorer: TurnScorer, pieces: Sequence[Piece], source: Source, texts: Sequence[str]) -> list[Score]:
    """Scores of the tokens of pieces that are scored, with their texts; `source` has the states of all that the pieces hold."""
    return [Score(text, {view: z}) for text, z in zip(texts, scorer.feed(pieces, [source]), strict=True)]
