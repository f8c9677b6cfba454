"""A reply as a stream: every text is held back until it is scored, everything else passes as it came.

upstream's events -> chunks -> each choice's texts through their channels -> chunks -> the client's events
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

import anyio
import httpx2
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from charter.gateway.body import dump
from charter.gateway.channels import Path, choice_of, replaced, texts
from charter.gateway.errors import upstream_problem
from charter.gateway.scoring import UNSCORED, Channel, Conversation, ScoringFailed
from charter.gateway.sse import DONE, EventReader, EventTooLarge, frame

Chunk = dict[str, Any]
ENVELOPE = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "obfuscation", "choices"})
"""Top-level fields that say nothing by themselves: a chunk of nothing else need not be sent."""


class UpstreamBroke(Exception):
    """The stream died or went on with something that can't be read, and so not scored."""


class GuardedChoice:
    """One choice of a streamed reply: its channels, one of them live at a time."""

    def __init__(self, conversation: Conversation, index: int) -> None:
        self._conversation, self._index = conversation, index
        self._channels: dict[Path, Channel] = {}
        self._live: Path | None = None
        self._counted = False
        self.ended = False
        self.cut = False
        """It was ended by the guard, in the middle of what the upstream still writes."""

    async def take(self, choice: dict[str, Any]) -> tuple[list[Chunk], dict[str, Any] | None, list[Chunk]]:
        """What becomes of a choice of a chunk: rests of other channels to be sent before it, itself (None where nothing is left
        of it), and, where it is flagged, the closing chunk after it. Of chunks only `choices` and `charter` are filled in."""
        came = dict(texts(choice))
        finished = choice.get("finish_reason") is not None
        passed: dict[Path, str] = {}
        problem: str | None = None
        try:
            for path, text in texts(choice):
                if text:
                    await self._push(path, text, passed)
            if finished:
                await self._flush_all(passed)
        except ScoringFailed as error:
            problem = str(error)
        before = [self._rest(path, text) for path, text in passed.items() if path not in came and text]
        after = self._close(problem)
        kept = replaced(choice, passed)
        if self._conversation.settings.mode == "shadow":
            kept = choice
        elif "logprobs" in kept and (self._held or any(passed.get(path, "") != text for path, text in came.items())):
            kept = {**kept, "logprobs": None}  # they would spell out what is withheld
        if after:
            kept = {**kept, "finish_reason": None}
        if finished:
            self.ended, self.cut = True, False
        return before, kept if _carries(kept) else None, after

    async def end(self) -> list[Chunk]:
        """The upstream's stream is over; the rests, and the closing chunk where they are flagged."""
        passed: dict[Path, str] = {}
        problem: str | None = None
        try:
            await self._flush_all(passed)
        except ScoringFailed as error:
            problem = str(error)
        return [self._rest(path, text) for path, text in passed.items() if text] + self._close(problem)

    @property
    def _flagged(self) -> bool:
        return self._conversation.settings.mode == "enforce" and any(c.flagged for c in self._channels.values())

    @property
    def _held(self) -> bool:
        return any(c.held for c in self._channels.values())

    async def _push(self, path: Path, text: str, passed: dict[Path, str]) -> None:
        """Text of one channel. The one that was live before is flushed, so that its last word doesn't come after this."""
        if self._live not in (None, path):
            await self._flush(self._live, passed)
        if self._flagged:
            return
        self._live = path
        channel = self._channels.get(path) or self._channels.setdefault(path, self._conversation.channel((self._index, path)))
        passed[path] = passed.get(path, "") + await channel.push(text)
        if path[-1] == "name":  # clients take a tool's name from its first chunk
            await self._flush(path, passed)

    async def _flush(self, path: Path | None, passed: dict[Path, str], again: bool = False) -> None:
        """Flush a channel, once; from then on only in the end: a flushed one that goes on is read anew from its start."""
        channel = self._channels[path] if path is not None else None
        if path is not None and channel is not None and not channel.flagged and (again or not channel.times_flushed):
            passed[path] = passed.get(path, "") + await channel.flush()

    async def _flush_all(self, passed: dict[Path, str]) -> None:
        for path in self._channels:
            if not self._flagged:
                await self._flush(path, passed, again=True)

    def _rest(self, path: Path, text: str) -> Chunk:
        return {"choices": [choice_of(self._index, path, text)]}

    def _close(self, problem: str | None) -> list[Chunk]:
        """The chunk that ends a flagged or unscorable choice; none where it may go on. Counts the verdict."""
        verdict = next((c.verdict for c in self._channels.values() if c.flagged), UNSCORED)
        if self._counted or not (verdict.flagged or problem):
            return []
        self._counted = True
        if verdict.flagged:
            self._conversation.count_reply(verdict)
        else:
            self._conversation.scorer.counters.blocked_replies += 1
        if self._conversation.settings.mode == "shadow":
            return []
        self.ended = self.cut = True
        note = {"verdict": asdict(verdict), "action": "block", "stage": "reply"} | ({"error": problem} if problem else {})
        closing = {"index": self._index, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}
        return [{"choices": [closing], "charter": note}]


class GuardedStream:
    """A whole streamed reply, of one choice or several."""

    def __init__(self, conversation: Conversation, n_choices: int) -> None:
        self._conversation = conversation
        self._shadow = conversation.settings.mode == "shadow"
        self._expected = range(n_choices)
        self._choices: dict[int, GuardedChoice] = {}
        self._envelope: dict[str, Any] = {}

    async def events(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """The client's events, each as it is sent; the upstream is let go as soon as nothing of it is wanted any more."""
        broke: UpstreamBroke | None = None
        try:
            async for data in _events(response, self._conversation.settings.max_reply_bytes):
                chunk = _chunk(data)
                guarded = await self._take(chunk)
                for out in [chunk] if self._shadow else guarded:
                    yield self._sent(out, data if self._shadow else None)
                if self._all_cut:
                    break
        except UpstreamBroke as error:
            broke = error
        await response.aclose()
        for choice in self._choices.values():
            for out in [] if choice.ended else await choice.end():
                yield self._sent(self._envelope | out)
        self._conversation.ledger.settle()
        yield frame(DONE if broke is None else dump(upstream_problem(str(broke)).body))

    async def _take(self, chunk: Chunk) -> list[Chunk]:
        """What becomes of a chunk of the upstream's: none, itself in part or whole, and others before and after it."""
        choices = chunk.get("choices")
        if not choices:
            return [chunk]
        self._envelope = {key: value for key, value in chunk.items() if key in ENVELOPE and key != "obfuscation"}
        first, kept, last = [], [], []
        for choice in choices:
            guarded = self._choice(choice.get("index", 0))
            if guarded.ended and not self._shadow:
                continue  # what comes after the end has no place to go
            before, itself, after = await guarded.take(choice)
            first += before
            kept += [itself] if itself is not None else []
            last += after
        itself = {**chunk, "choices": kept}
        says = bool(kept) or any(value is not None for key, value in chunk.items() if key not in ENVELOPE)
        made = [self._envelope | out for out in first], [self._envelope | out for out in last]
        return [*made[0], *([itself] if says else []), *made[1]]

    def _choice(self, index: int) -> GuardedChoice:
        return self._choices.setdefault(index, GuardedChoice(self._conversation, index))

    @property
    def _all_cut(self) -> bool:
        """Whether the guard cut a choice short and none is left that goes on."""
        ended = all(i in self._choices and self._choices[i].ended for i in self._expected)
        return ended and any(choice.cut for choice in self._choices.values()) and all(c.ended for c in self._choices.values())

    def _sent(self, chunk: Chunk, data: str | None = None) -> bytes:
        """A chunk as it goes out, entered in the ledger by what stands in it."""
        for choice in chunk.get("choices") or []:
            for path, text in texts(choice):
                self._conversation.ledger.sent((choice.get("index", 0), path), text)
        return frame(dump(chunk) if data is None else data)


class EventStream(StreamingResponse):
    """A streamed response that lets the upstream go whenever it ends, be it that the client went away."""

    def __init__(self, events: AsyncIterator[bytes], upstream: AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(events, headers=headers)
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._upstream.aclose()


async def _events(response: httpx2.Response, max_chars: int) -> AsyncIterator[str]:
    """The data of the upstream's events, up to the one that says that it is done, or to its end.

    Raises:
        UpstreamBroke: as it says.
    """
    reader = EventReader(max_chars)
    try:
        async for block in response.aiter_bytes():
            for data in reader.push(block):
                if data.strip() == DONE:
                    return
                yield data
    except httpx2.HTTPError as error:
        raise UpstreamBroke(f"the upstream's stream broke off ({type(error).__name__}); try again") from error
    except EventTooLarge as error:
        raise UpstreamBroke(f"an event of the upstream's is larger than {max_chars:,} characters") from error
    for data in reader.flush():
        if data.strip() != DONE:
            yield data


def _chunk(data: str) -> Chunk:
    """A chunk whose choices can be read.

    Raises:
        UpstreamBroke: it is none.
    """
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamBroke("the upstream sent an event that is not JSON, so it can't be scored") from error
    choices = chunk.get("choices") or [] if isinstance(chunk, dict) else None
    if not isinstance(choices, list) or not all(isinstance(c, dict) and type(c.get("index", 0)) is int for c in choices):
        raise UpstreamBroke("the upstream sent an event that is no chunk of a chat completion, so it can't be scored")
    assert isinstance(chunk, dict)
    return chunk


def _carries(value: Any) -> bool:
    """Whether anything is left in a choice besides its place."""
    if isinstance(value, dict):
        return any(_carries(inner) for key, inner in value.items() if key != "index")
    if isinstance(value, list):
        return any(map(_carries, value))
    return value is not None and value != ""
