"""What a language model is asked and what it answers: two frozen records and the protocol between them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from charter.records import Turn

FILTERED = "content_filter"
"""The finish reason of a reply that a filter or a guard blocked."""
CHARACTERS_A_TOKEN = 2
"""Lower than any usual text has, so that what is set aside for a call is never too small."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call, complete: the same request and model give the same key in the cache."""

    messages: tuple[Turn, ...]
    max_tokens: int
    temperature: float
    seed: int
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    """How many alternatives to give for each token of the reply; None: none."""
    prefill: str = ""
    """Beginning of the reply, which the model goes on from. Servers that can't do that answer afresh."""

    def key(self, model: str) -> str:
        """SHA-256 of the canonical JSON of the request and the model."""
        return digest(self.canonical(model))

    def canonical(self, model: str) -> str:
        """The request as JSON with sorted keys and no spaces."""
        return json.dumps({"model": model, **asdict(self)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def size(self) -> int:
        """Characters that are sent."""
        return sum(len(t.content) for t in self.messages) + len(self.prefill)

    @property
    def worst(self) -> tuple[int, int]:
        """Tokens in and out that it may take at most: an estimate from above."""
        return self.size // CHARACTERS_A_TOKEN, self.max_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    text: str
    """Without the prefill."""
    prompt_tokens: int
    completion_tokens: int
    top_logprobs: tuple[dict[str, float], ...] = ()
    """For each token of the reply, its likeliest alternatives with their natural-log probabilities."""
    finish: str = ""
    """Why it ended, as the server says: stop, length, content_filter; "" where it doesn't say."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(value: dict[str, Any]) -> Reply:
        return Reply(
            value["text"], value["prompt_tokens"], value["completion_tokens"], tuple(value["top_logprobs"]), value.get("finish", "")
        )


def digest(canonical: str) -> str:
    """SHA-256 of a canonical request, in hex."""
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


class Chat(Protocol):
    """A language model: `OpenAIChat`, `CachedChat` around one, or a fake in tests."""

    @property
    def model(self) -> str:
        """Its name: part of the cache key."""
        ...

    async def complete(self, request: Request) -> Reply:
        """One reply.

        Raises:
            UnusableAnswer: no usable reply came, which may lie in this request alone.
            TeacherError: none can come.
        """
        ...
