"""What the scorer makes of a token of a stream, and of a whole exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from charter.models.turn import Logits
from charter.records import REPLY_VIEWS, Exchange, View


@dataclass(frozen=True, slots=True)
class Score:
    """A token's text and its logits, float32 [heads]: overall, then one for each restricted clause."""

    text: str
    by: Mapping[View, Logits]
    """By each view that judges it: "prompt", or those of a reply."""

    @property
    def z(self) -> Logits:
        """By the first of them: of a reply, by the exchange view where there is one."""
        return next(iter(self.by.values()))


@dataclass(frozen=True, slots=True)
class Scored:
    """A whole exchange: token texts and logits [tokens, heads] of the conversation and of the reply (None without one or that view)."""

    exchange: Exchange
    prompt: Logits
    """Of no tokens where `batch` was asked for what the exchange is judged by, and that is its reply."""
    prompt_texts: tuple[str, ...]
    reply: Logits | None
    reply_texts: tuple[str, ...]
    tokens: int
    """All of the conversation, marks included."""
    read: tuple[int, ...]
    """How many of them each stage after the screen has read, and last a sentence encoder, in its own; what two views read counts twice."""
    alone: Logits | None = None
    """Of the reply, by the reply view."""
    windowed: bool = False
    """Whether it is longer than the context, and was read in overlapping windows."""

    def logits(self, view: View) -> Logits | None:
        """Logits [tokens, heads] of one view; None where the exchange has no such part, or the cascade no such view."""
        return {"prompt": self.prompt, "exchange": self.reply, "reply": self.alone}[view]

    @property
    def judged(self) -> dict[View, Logits]:
        """Those by which the exchange is judged: of its reply where it has one, else of its prompt."""
        views = REPLY_VIEWS if self.exchange.reply is not None else ("prompt",)
        return {view: z for view in views if (z := self.logits(view)) is not None}

    @property
    def judged_texts(self) -> tuple[str, ...]:
        """The texts of those tokens."""
        return self.prompt_texts if self.exchange.reply is None else self.reply_texts
