"""A reply as a stream: every text is held back until it is scored, everything else passes as it came.

upstream's events -> their parts -> each part's texts through their channels -> parts -> the client's events
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import httpx2
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from charter.gateway.blocks import block_of, block_problem
from charter.gateway.channels import Path
from charter.gateway.errors import HTTPProblem, upstream_problem
from charter.gateway.scorer import UNSCORED, ScoringFailed
from charter.gateway.scoring import Channel, Conversation
from charter.gateway.sse import DONE, EventReader, EventTooLarge
from charter.gateway.surface import JSON, Block, Stream, Unreadable

WHOLE: Path = ("whole",)
"""The ledger's name for texts that stand in full in one event."""


class UpstreamBroke(Exception):
    """The stream died or went on with something that can't be read, and so not scored."""


class GuardedChoice:
    """One choice of a streamed reply: its channels, one of them live at a time."""

    def __init__(self, conversation: Conversation, stream: Stream, index: int) -> None:
        self._conversation, self._stream, self._index = conversation, stream, index
        self._channels: dict[Path, Channel] = {}
        self._live: Path | None = None
        self._counted = False
        self.ended = False
        self.cut = False
        """It was ended by the guard, in the middle of what the upstream still writes."""
        self.problem: HTTPProblem | None = None
        """The error that the whole stream ends with, where blocks are told that way."""
        self._block: Block | None = None
        """What is still to be told of it."""

    async def take(self, part: JSON) -> tuple[list[JSON], JSON | None]:
        """What becomes of a part of an event: rests of other channels to be sent before it, and itself (None where nothing is left).

        Where it is flagged, `closing` has the rest to say, once these have left.
        """
        came: dict[Path, str] = {}
        for path, text in self._stream.deltas(part):
            if text:  # an empty one has no room for the rest of its channel, which then comes before
                came[path] = came.get(path, "") + text
        finished = self._stream.finished(part)
        passed: dict[Path, str] = {}
        problem: str | None = None
        clean = False
        try:
            clean = await self._score(part, passed)
            if finished:
                await self._flush_all(passed)
        except ScoringFailed as error:
            problem = str(error)
            clean = not any(self._stream.wholes(part))
        before = [self._stream.rest(self._index, path, text) for path, text in passed.items() if path not in came and text]
        self._close(problem)
        kept: JSON | None = part
        if self._conversation.settings.mode == "enforce":
            changed = self._held or any(passed.get(path, "") != text for path, text in came.items())
            kept = self._stream.replaced(part, {path: passed.get(path, "") for path in came}, changed) if clean else None
            if self.cut and kept is not None:
                kept = self._stream.unfinished(kept)
        if finished and not self.cut:
            self.ended = True
        return before, kept

    async def end(self) -> list[JSON]:
        """The upstream's stream is over; the rests."""
        passed: dict[Path, str] = {}
        problem: str | None = None
        try:
            await self._flush_all(passed)
        except ScoringFailed as error:
            problem = str(error)
        self._close(problem)
        return [self._stream.rest(self._index, path, text) for path, text in passed.items() if text]

    def closing(self) -> list[JSON]:
        """The events that end a choice which was cut, given once."""
        block, self._block = self._block, None
        events = self._stream.closing(self._index, block) if block else []
        ledger = self._conversation.ledger
        for part in (part for event in events for _, part in self._stream.parts(event)):  # the operator's words, and what has left
            for path, text in self._stream.deltas(part):
                ledger.passed((self._index, path), text)
            for text in self._stream.wholes(part):
                ledger.passed((self._index, WHOLE), text)
        return events

    async def _score(self, part: JSON, passed: dict[Path, str]) -> bool:
        """Send a part's texts through their channels; whether those that stand in full all pass."""
        for path, text in self._stream.deltas(part):
            if text:
                await self._push(path, text, passed)
        for path in self._stream.ends(part, self._channels):
            if not self._flagged:
                await self._flush(path, passed, again=True)
        clean = True
        for text in self._stream.wholes(part):
            clean = clean and await self._whole(text, passed)
        return clean

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

    async def _whole(self, text: str, passed: dict[Path, str]) -> bool:
        """A text that stands in full: either what its channel has said already, or scored by itself. Whether it may leave."""
        path = next((path for path, c in self._channels.items() if c.text == text), None)
        ledger, key = self._conversation.ledger, (self._index, WHOLE)
        if path is not None:
            await self._flush(path, passed, again=True)
        elif not self._flagged:
            path = (*WHOLE, len(self._channels))
            self._channels[path] = self._conversation.channel((self._index, path))
            await self._channels[path].push(text)
            await self._channels[path].flush()
        if path is not None and self._channels[path].flagged:
            ledger.flagged(key)
        elif path is not None and not self._channels[path].unscored:
            ledger.passed(key, text)
        return not self._flagged

    async def _flush(self, path: Path | None, passed: dict[Path, str], again: bool = False) -> None:
        """Flush a channel, once; from then on only in the end: a flushed one that goes on is read anew from its start."""
        channel = self._channels[path] if path is not None else None
        if path is not None and channel is not None and not channel.flagged and (again or not channel.times_flushed):
            passed[path] = passed.get(path, "") + await channel.flush()

    async def _flush_all(self, passed: dict[Path, str]) -> None:
        for path in self._channels:
            if not self._flagged:
                await self._flush(path, passed, again=True)

    def _close(self, problem: str | None) -> None:
        """End a flagged or unscorable choice. Counts the verdict."""
        verdict = next((c.verdict for c in self._channels.values() if c.flagged), UNSCORED)
        if self._counted or not (verdict.flagged or problem):
            return
        self._counted = True
        if verdict.flagged:
            self._conversation.count_reply(verdict)
        else:
            self._conversation.scorer.counters.blocked_replies += 1
        settings = self._conversation.settings
        if settings.mode == "shadow":
            return
        self.ended = self.cut = True
        if settings.on_block == "error":
            self.problem = block_problem(verdict, "reply", problem)
        else:
            self._block = block_of(settings, verdict, "reply", problem)


class GuardedStream:
    """A whole streamed reply, of one choice or several."""

    def __init__(self, conversation: Conversation, stream: Stream, n_choices: int) -> None:
        self._conversation, self._stream = conversation, stream
        self._shadow = conversation.settings.mode == "shadow"
        self._expected = range(n_choices)
        self._choices: dict[int, GuardedChoice] = {}

    async def events(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """The client's events, each as it is sent; the upstream is let go as soon as nothing of it is wanted any more."""
        fault: HTTPProblem | None = None
        try:
            async for data in _events(response, self._conversation.settings.max_reply_bytes):
                event = _object(data)
                guarded = await self._take(event)
                for out in [event] if self._shadow else guarded:
                    yield self._sent(out, data if self._shadow else None)
                for out in self._closing():
                    yield self._sent(out)
                if self._all_cut:
                    break
        except (UpstreamBroke, Unreadable) as error:
            fault = upstream_problem(str(error))
        await response.aclose()
        for choice in self._choices.values():
            for out in [] if choice.ended else await choice.end():
                yield self._sent(out)
        for out in self._closing():
            yield self._sent(out)
        self._conversation.ledger.settle()
        fault = next((choice.problem for choice in self._choices.values() if choice.problem), fault)
        yield self._stream.last if fault is None else self._stream.problem(fault)

    async def _take(self, event: JSON) -> list[JSON]:
        """What becomes of an event of the upstream's: none, itself in part or whole, and others before it."""
        parts = self._stream.parts(event)
        if not parts:
            return [event]
        first, kept = [], []
        for index, part in parts:
            choice = self._choice(index)
            if choice.ended and not self._shadow:
                continue  # what comes after the end has no place to go
            before, itself = await choice.take(part)
            first += before
            kept += [itself] if itself is not None else []
        joined = self._stream.joined(event, kept)
        return [*first, *([joined] if joined is not None else [])]

    def _closing(self) -> list[JSON]:
        return [event for choice in self._choices.values() for event in choice.closing()]

    def _choice(self, index: int) -> GuardedChoice:
        return self._choices.setdefault(index, GuardedChoice(self._conversation, self._stream, index))

    @property
    def _all_cut(self) -> bool:
        """Whether the guard cut a choice short and none is left that goes on, or none may."""
        ended = all(i in self._choices and self._choices[i].ended for i in self._expected)
        all_cut = ended and any(choice.cut for choice in self._choices.values()) and all(c.ended for c in self._choices.values())
        return all_cut or any(choice.problem for choice in self._choices.values())

    def _sent(self, event: JSON, data: str | None = None) -> bytes:
        """An event as it goes out, entered in the ledger by what stands in it."""
        if data is None:
            event = self._stream.sent(event)
        for index, part in self._stream.parts(event):
            for path, text in self._stream.deltas(part):
                self._conversation.ledger.sent((index, path), text)
            for text in self._stream.wholes(part):
                self._conversation.ledger.sent((index, WHOLE), text)
        return self._stream.frame(event, data)


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


def _object(data: str) -> JSON:
    """An event's JSON object.

    Raises:
        UpstreamBroke: it is none.
    """
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UpstreamBroke("the upstream sent an event that is not JSON, so it can't be scored") from error
    if not isinstance(event, dict):
        raise UpstreamBroke("the upstream sent an event that is no chunk of a reply, so it can't be scored")
    return event
