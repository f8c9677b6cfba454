"""Findings as they come, for those who watch: the last few, then each as a server-sent event. Never content."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from charter.gateway.audit.finding import Finding
from charter.gateway.sse import frame

KEPT = 500
"""Findings that one who comes later still sees."""
BEHIND = 256
"""Findings that a watcher may be late with; then its stream ends, and its page comes again."""
MOST = 16
"""Watchers at once."""
QUIET_S = 15.0
TOLD = (
    "id", "time", "request", "surface", "stage", "choice", "guard", "guard_hash", "mode", "score", "clause", "position", "action", "error",
    "latency_ms",
)  # fmt: skip
"""Columns of a finding that are told as they are; `content` is not."""


class Feed:
    """Changed on the event loop only."""

    def __init__(self) -> None:
        self._recent: deque[bytes] = deque(maxlen=KEPT)
        self._watchers: set[MemoryObjectSendStream[bytes]] = set()

    @property
    def full(self) -> bool:
        return len(self._watchers) >= MOST

    def found(self, finding: Finding) -> None:
        """Tell this to all who watch; waits for none."""
        event = frame(json.dumps({"verdict": finding.outcome} | {name: getattr(finding, name) for name in TOLD}))
        self._recent.append(event)
        for watcher in tuple(self._watchers):
            try:
                watcher.send_nowait(event)
            except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._watchers.discard(watcher)
                watcher.close()

    async def watch(self) -> AsyncIterator[bytes]:
        """The events from here on, those that are kept first; a comment where nothing was found for a while."""
        sender, receiver = anyio.create_memory_object_stream[bytes](BEHIND)
        self._watchers.add(sender)
        recent = b"".join([b": the last findings\n\n", *self._recent])
        try:
            with receiver:
                yield recent
                while True:
                    event = b": nothing new\n\n"
                    with anyio.move_on_after(QUIET_S):
                        event = await receiver.receive()
                    yield event
        except anyio.EndOfStream:
            return
        finally:
            self._watchers.discard(sender)
            sender.close()
