"""A model that answers in this process, and lets the hidden states be read that its own generation computes.

    generation = generator.start(turns)              # the prefill: `generation.turns` with their states
    for token in generation.tokens(sampling): ...    # text and states, token by token

The state of a token stands in the forward that predicts the one after it. So a token is given one step after it was drawn, and
the last one costs a step of its own, together with the mark that ends the turn: no token goes without a state. Nothing follows on that
step, so it ends with the deepest block that is read.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from charter.errors import BackboneError
from charter.models.backbone import CHUNK, Backbone
from charter.models.chat_format import ChatFormat, Speech
from charter.models.encoder import Piece
from charter.records import Turn


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn."""

    max_tokens: int = 1_024
    """The longest reply, the mark that ends it left out; the context may end it earlier."""
    temperature: float = 0.8
    """0 takes the likeliest token."""
    top_p: float = 0.95
    seed: int | None = None
    """None: another reply each time."""
    stop: tuple[str, ...] = ()
    """Texts before which the reply ends."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a reply."""

    id: int
    text: str
    """What it completes; "" in the midst of a character, or of what may become a stop. The last one may hold a rest of earlier text."""
    states: Tensor
    """float [layers, width]."""
    ends: bool = False
    """It is the mark that ends the turn."""


class Generator(Backbone):
    """A whole causal model. It is its guard's backbone too: what a probe reads here is what it was trained on."""

    generates = True

    def __init__(self, name: str = "embedded", layers: Sequence[int] | None = None) -> None:
        """As `Backbone`, with all blocks run.

        Raises:
            BackboneError: also where the model has no chat template.
        """
        super().__init__(name, layers)
        self.shallow = copy.copy(self._body)
        """The model up to the deepest block that is read, without its output head; the blocks are the same."""
        self.shallow._modules = {**self._body._modules, "layers": self._body.layers[: max(self.layers)]}
        self.chat = ChatFormat(self._tokenizer, self.encoder)

    def start(self, turns: Sequence[Turn]) -> Generation:
        """Read a conversation.

        Raises:
            BackboneError: it doesn't fit the template, or leaves no room for a reply.
        """
        return Generation(self, turns)


class Generation:
    """One reply in the making, with its key-value cache."""

    def __init__(self, generator: Generator, turns: Sequence[Turn]) -> None:
        from transformers import DynamicCache

        self._generator, self._cache = generator, DynamicCache()
        pieces, opening = generator.chat.turns(turns)
        ids = [i for turn in pieces for p in turn for i in p.ids] + opening
        self.prompt_tokens = len(ids)
        self.finish = ""
        """Why the reply ended: stop or length; "" before."""
        self.drawn = 0
        """Tokens of the reply so far, the mark that ends it included where the model drew it."""
        self._room = generator.context - len(ids) - 1 - len(generator.chat.ending)
        if self._room < 0:
            raise BackboneError(f"the conversation is longer than the model's context of {generator.context:,} tokens")
        states = self._feed(ids)
        self.turns: list[tuple[list[Piece], Tensor]] = []
        """The pieces of each turn and their states [tokens, layers, width]."""
        at = 0
        for turn in pieces:
            self.turns.append((turn, states[at : (at := at + sum(len(p.ids) for p in turn))]))

    def tokens(self, sampling: Sampling) -> Iterator[Token]:
        """Draw the reply. Closing the iterator ends it: nothing is computed ahead."""
        rng = torch.Generator().manual_seed(sampling.seed) if sampling.seed is not None else None
        chat, text = self._generator.chat, _Text(Speech(self._generator.chat), sampling.stop)
        for left in range(min(sampling.max_tokens, self._room), 0, -1):
            number = draw(self._logits, sampling, rng)
            self.drawn += 1
            if number in chat.stops:
                self.finish = "stop"
                yield Token(number, text.flush(), self._close([number])[-1], ends=True)
                return
            said = text.push(number)
            if text.stopped or left == 1:
                rest = text.flush()
                self.finish = "stop" if text.stopped else "length"
                states = self._close([number, *chat.ending])
                yield Token(number, said, states[0])
                yield Token(chat.ending[-1], rest, states[-1], ends=True)
                return
            yield Token(number, said, self._feed([number])[0])
        self.finish = "length"  # no room for a single token
        yield Token(chat.ending[-1], "", self._close(chat.ending)[-1], ends=True)

    @torch.inference_mode()
    def _close(self, ids: Sequence[int]) -> Tensor:
        """Append the last tokens; returns their states. What would follow is not asked."""
        closing = torch.tensor([list(ids)], dtype=torch.long)
        states, _ = self._generator._run(None, self._generator.shallow, input_ids=closing, past_key_values=self._cache, use_cache=True)
        return states[0]

    @torch.inference_mode()
    def _feed(self, ids: Sequence[int]) -> Tensor:
        """Append tokens; returns their states and keeps the logits of what follows."""
        states = []
        for start in range(0, len(ids), CHUNK):
            chunk = torch.tensor([list(ids[start : start + CHUNK])], dtype=torch.long)
            own, output = self._generator._run(None, input_ids=chunk, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            states.append(own[0])
            self._logits: Tensor = output.logits[0, -1]
        return torch.cat(states)


class _Text:
    """What a reply says, up to the first stop; what may become one is kept back."""

    def __init__(self, speech: Speech, stop: Sequence[str]) -> None:
        self._speech, self._stop = speech, [text for text in stop if text]
        self._kept = ""
        self.stopped = False

    def push(self, number: int) -> str:
        text = self._cut(self._kept + self._speech.push(number))
        begun = (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        longest = 0 if self.stopped else max(begun, default=0)
        self._kept = text[len(text) - longest :]
        return text[: len(text) - longest]

    def flush(self) -> str:
        """The last token has come; the rest."""
        return "" if self.stopped else self._cut(self._kept + self._speech.flush())

    def _cut(self, text: str) -> str:
        """Up to the first stop."""
        found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        self.stopped = bool(found)
        return text[: min(found)] if found else text


def draw(logits: Tensor, sampling: Sampling, rng: torch.Generator | None = None) -> int:
    """The next token from its logits [vocabulary]: the likeliest, or one of those that together have the probability top_p."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    p, order = torch.softmax(logits.float() / sampling.temperature, -1).sort(descending=True)
    p = p * (p.cumsum(-1) - p < sampling.top_p)
    return int(order[torch.multinomial(p, 1, generator=rng)])
