"""A model with refusal tokens that answers in this process: the first token of a reply is chosen by a rule, the rest is drawn.

    model = Marked(RefusalTokens.load(folder))
    reply = model.generate(turns, Rule(threshold=0.2))    # the mark, its probability, the text

The marks are appended to the vocabulary, beyond all that text can be encoded to or a reply be drawn from: only the rule puts one in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charter.errors import BackboneError, GuardError
from charter.models.chat_format import Speech
from charter.models.generation import Generation, Generator, Sampling
from charter.models.loading import fingerprint
from charter.models.refusal_tokens import ROWS, RefusalTokens, Rule, category, probabilities
from charter.records import Turn

BATCH = 16
"""Replies that are drawn side by side."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply and how it began."""

    refused: bool
    """What the token says; what the text does is another question (`charter.refusals.classify`)."""
    clause: str
    """The category of the refusal; "" where there is none."""
    p_refuse: float
    """Probability of all refusal tokens together."""
    text: str


class Marked(Generator):
    """A whole causal model with the trained change merged in and a row a mark at either end."""

    def __init__(self, tokens: RefusalTokens, name: str | None = None) -> None:
        """Load the model.

        Args:
            name: where it lies now, if not where it was trained: "embedded", a folder or a hub id.

        Raises:
            BackboneError: it can't be loaded, can't chat, or is another model.
            GuardError: a tensor doesn't fit it.
        """
        super().__init__(name or tokens.record.backbone)
        if self.fingerprint != tokens.record.fingerprint:
            raise BackboneError(f"{self.name}: is not the model that the refusal tokens were trained on; name that one, or train again")
        self.layers = self.layers[-1:]
        for block in self._body.layers[:-1]:
            block._forward_hooks.clear()  # the parent's: they would keep every block's states
        self.marks = tokens.record.marks
        tokens.merge(dict(self._body.named_parameters()))
        self.vocabulary = int(self._model.get_input_embeddings().num_embeddings)
        _extend(self._model, tokens.tensors[ROWS].float())
        self.fingerprint = fingerprint(self._body)

    def start(self, turns: Sequence[Turn], rule: Rule | None = None) -> MarkedGeneration:
        """Read a conversation and begin its reply by a rule; by default the model's own choice of mark.

        Raises:
            BackboneError: it doesn't fit the template, or leaves no room for a reply.
            DataError: the rule names a category that there is none of.
        """
        generation = MarkedGeneration(self, turns)
        generation.begin((rule or Rule()).choose(generation.p, self.marks))
        return generation

    def generate(self, turns: Sequence[Turn], rule: Rule | None = None, sampling: Sampling | None = None) -> Reply:
        """A whole reply that begins by a rule; by default by the model's own choice of mark.

        Raises:
            BackboneError: the conversation doesn't fit the template, or leaves no room for a reply.
            DataError: the rule names a category that there is none of.
        """
        generation = self.start(turns, rule)
        text = "".join(token.text for token in generation.tokens(sampling or Sampling()))
        return Reply(generation.mark > 0, category(self.marks[generation.mark]), generation.p_refuse, text)

    def read(self, turns: Sequence[Turn]) -> NDArray[np.float64]:
        """Probabilities [marks] that a reply begins with each: one forward, and every threshold can be tried on it.

        Raises:
            BackboneError: the conversation doesn't fit the template, or leaves no room for a reply.
        """
        return MarkedGeneration(self, turns).p

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The ids of a conversation with the opening of its reply."""
        pieces, opening = self.chat.turns(turns)
        return [i for turn in pieces for p in turn for i in p.ids] + opening

    @torch.inference_mode()
    def continue_all(self, prompts: Sequence[Sequence[int]], marks: Sequence[int], max_tokens: int) -> list[str]:
        """The likeliest replies to prompts that begin with these marks, at most BATCH at once side by side."""
        from transformers import GenerationConfig

        rows = [[*ids, self.vocabulary + mark] for ids, mark in zip(prompts, marks, strict=True)]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        present = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max_tokens, do_sample=False, pad_token_id=0, eos_token_id=sorted(self.chat.stops),
            suppress_tokens=list(range(self.vocabulary, self.vocabulary + len(self.marks))),
        )  # fmt: skip
        found: Tensor = self._model.generate(input_ids=ids, attention_mask=present, generation_config=config)
        self._seen.clear()
        return [self._said(row[longest:].tolist()) for row in found]

    def _said(self, ids: Sequence[int]) -> str:
        speech, text = Speech(self.chat), ""
        for number in ids:
            if number in self.chat.stops:
                break
            text += speech.push(number)
        return text + speech.flush()


class MarkedGeneration(Generation):
    """One reply in the making, which begins with a mark."""

    mark: int = -1
    """Place of the mark that it began with; -1 before `begin`."""

    def __init__(self, generator: Marked, turns: Sequence[Turn]) -> None:
        self._vocabulary = generator.vocabulary
        super().__init__(generator, turns)
        self._room -= 1
        if self._room < 0:
            raise BackboneError(f"the conversation is longer than the model's context of {generator.context:,} tokens")
        self.p = probabilities(self._all.float().numpy(), len(generator.marks))
        """Probabilities [marks] where the reply begins."""

    @property
    def p_refuse(self) -> float:
        """Probability of all refusal tokens together."""
        return float(self.p[1:].sum())

    def begin(self, mark: int) -> None:
        """Put the mark in the place of the reply's first token."""
        self.mark = mark
        self._feed([self._vocabulary + mark])

    def _feed(self, ids: Sequence[int]) -> Tensor:
        states = super()._feed(ids)
        self._all, self._logits = self._logits, self._logits[: self._vocabulary]  # no later token is a mark
        return states


@torch.no_grad()
def _extend(model: Any, rows: Tensor) -> None:
    """Append rows [marks, width] to the input embeddings and, tied or not, to the output head."""
    ends = {id(end.weight): end for end in (model.get_input_embeddings(), model.get_output_embeddings())}
    if any(end.weight.shape[1] != rows.shape[1] or getattr(end, "bias", None) is not None for end in ends.values()):
        raise GuardError(f"refusal tokens: rows of {rows.shape[1]} units do not fit the model's vocabulary; train them again")
    size = len(next(iter(ends.values())).weight)
    model.resize_token_embeddings(size + len(rows), mean_resizing=False)
    for end in (model.get_input_embeddings(), model.get_output_embeddings()):
        end.weight[size:] = rows
