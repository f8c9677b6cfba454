"""Each token's score within a stream, for a client that asks: the header `x-charter-scores: tokens` on /v1/chat/completions.

Events of Charter's own stand among the completion's chunks. They hold no text: a token is told as how many characters of what the
client has (its own prompt, the reply it was sent) stand behind it, and a withheld one by its score alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request

from charter.gateway.choices import Chat
from charter.gateway.scorer import ScoringFailed
from charter.gateway.scoring import Channel, Conversation
from charter.gateway.surface import Stream, Surface
from charter.guard.policy import decide
from charter.guard.tokens import TellsTokens, TokenScore, telling
from charter.records import Verdict

HEADER = "x-charter-scores"
DIGITS = 6


def notes_for(surface: Surface, request: Request, conversation: Conversation) -> Notes | None:
    """The notes of one reply; None unless they are asked for, the gateway has a playground and the guard tells its tokens."""
    scorer = conversation.scorer
    asked = scorer.settings.playground and type(surface) is Chat and request.headers.get(HEADER) == "tokens"
    guard = telling(conversation.guard) if asked else None
    return Notes(conversation, guard, surface.stream()) if guard else None


class Notes:
    """What is told of one streamed reply."""

    def __init__(self, conversation: Conversation, guard: TellsTokens, stream: Stream) -> None:
        self._conversation, self._guard, self._stream = conversation, guard, stream
        self._told: dict[Channel, tuple[int, int]] = {}
        """Tokens of each channel that were told, and the characters behind them."""
        self._last: dict[Channel, tuple[int, Verdict]] = {}

    async def prompt(self) -> bytes:
        """The prompt's note: every token of the conversation so far, turn after turn, each turn's mark with 0 characters. Empty where it
        was not scored."""
        conversation = self._conversation
        session = conversation.judged
        try:
            scores = await conversation.scorer.call(self._guard.token_scores, session, "prompt", 0) if session else None
        except ScoringFailed:  # counted and logged; the verdict stands without its tokens
            scores = None
        if scores is None:
            return b""
        tokens = [_token(*score) for score in scores]
        return self._frame({"prompt": {"tokens": tokens, **self._judged(conversation.verdict)}})

    async def among(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The reply's events with notes among them: the prompt's first, then what is new after each."""
        async with aclosing(events) as frames:  # type: ignore[type-var]
            if note := await self.prompt():
                yield note
            async for frame in frames:
                if frame != self._stream.last:
                    yield frame
                for channel in self._conversation.channels:
                    if note := await self._news(channel):
                        yield note
                if frame == self._stream.last:
                    yield frame

    async def _news(self, channel: Channel) -> bytes:
        """What is new of a channel: tokens that left, and in the end those that were withheld up to the flagged one. Often nothing."""
        if channel.session is None or channel.unscored:
            return b""
        first, chars = self._told.get(channel, (0, 0))
        shadow = self._conversation.settings.mode == "shadow"
        left = len(channel.text) - (0 if shadow else len(channel.held))
        try:
            scores = await self._conversation.scorer.call(self._guard.token_scores, channel.session, "reply", first)
        except ScoringFailed:
            return b""
        tokens = _telling(scores, left - chars, channel.verdict, first)
        state = (0 if channel.flagged else len(channel.text) - left, channel.verdict)
        if not tokens and self._last.get(channel) == state:
            return b""
        self._told[channel] = (first + len(tokens), chars + sum(n or 0 for n, _ in tokens))
        self._last[channel] = state
        number, path = channel.key
        where = {"choice": number, "channel": ".".join(map(str, path)), "start": first}
        return self._frame({"reply": {**where, "tokens": tokens, "held": state[0], **self._judged(channel.verdict)}})

    def _judged(self, verdict: Verdict) -> dict[str, Any]:
        action = decide(verdict, self._conversation.settings.mode)
        return {
            "verdict": {"flagged": verdict.flagged, "score": verdict.score, "clause": verdict.clause, "position": verdict.position},
            "action": action,
        }  # fmt: skip

    def _frame(self, note: dict[str, Any]) -> bytes:
        return self._stream.frame({"object": "charter.scores", "choices": [], "charter": note})


def _telling(scores: list[TokenScore], room: int, verdict: Verdict, first: int) -> list[tuple[int | None, float]]:
    """Of scored tokens, those to be told: they lie within the `room` characters that have left, or were withheld and lead up to the flag.

    Args:
        scores: from the token of number `first` on.
    """
    tokens: list[tuple[int | None, float]] = []
    flagged = verdict.position
    for number, (chars, score) in enumerate(scores, first):
        room -= chars
        if flagged is not None and number > flagged:
            break
        if room < 0 or (number == flagged and chars == 0):
            if flagged is None:
                break
            room = -1
            tokens.append((None, round(score, DIGITS)))
        else:
            tokens.append(_token(chars, score))
    return tokens


def _token(chars: int, score: float) -> tuple[int, float]:
    return chars, round(score, DIGITS)
