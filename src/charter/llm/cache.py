"""What was asked is never asked again: replies in SQLite, keyed by the hash of the request. A killed run loses nothing.

Values are JSON. The write-ahead log keeps the file whole through `kill -9`, and lets several runs share it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from charter.errors import DataError, TeacherError, UnusableAnswer
from charter.llm.chat import Chat, Reply, Request, digest
from charter.llm.pool import Budget

if TYPE_CHECKING:
    import anyio

SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL) WITHOUT ROWID"
WINDOW, TOLERATED = 50, 20
"""A run stops when more than so many of the last calls got nothing usable."""


class Cache:
    """Replies by key in one file. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file.

        Raises:
            DataError: it can't be made, or is no cache.
        """
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise DataError(
                f"{path}: the teacher's cache can't be opened ({error}); set CHARTER_CACHE to a folder that can be written"
            ) from error
        with self._guarded():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(SCHEMA)

    def get(self, key: str) -> Reply | None:
        """The reply that was put under the key."""
        with self._guarded():
            row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
            return None if row is None else Reply.from_dict(json.loads(row[0]))

    def put(self, key: str, request: str, reply: Reply) -> None:
        """Keep a reply; on disk when this returns."""
        with self._guarded():
            values = (key, request, json.dumps(reply.as_dict(), ensure_ascii=False, separators=(",", ":")))
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", values)

    def __len__(self) -> int:
        with self._guarded():
            return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """One statement at a time, and its faults in plain words."""
        try:
            with self._lock:
                yield
        except sqlite3.OperationalError as error:
            raise DataError(f"{self.path}: the teacher's cache can't be used ({error}); is the disk full or the file in use?") from error
        except (sqlite3.DatabaseError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self.path}: the teacher's cache is damaged ({error}); delete the file and run again") from error


@dataclass
class Usage:
    """What a run asked for, and how much of it was there already."""

    made: int = 0
    """Calls that the model answered."""
    cached: int = 0
    """Calls whose reply was there already."""
    retried: int = 0
    """Calls sent once more after a fault that might pass."""
    failed: int = 0
    """Calls given up: nothing usable came after all attempts."""
    tokens_in: int = 0
    """Read by the model."""
    tokens_out: int = 0
    """Written by the model."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


class CachedChat:
    """A chat that asks each question once. Two tasks with the same question wait for one answer."""

    def __init__(self, chat: Chat, cache: Cache, budget: Budget | None = None, limit: int | None = None) -> None:
        """`limit` is how many calls may be in flight at once; None: as many as are asked for."""
        self._chat, self._cache, self._limit = chat, cache, limit
        self._budget = budget or Budget()
        self._usage = Usage()
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._open: dict[str, anyio.Event] = {}
        self._room: anyio.Semaphore | None = None

    @property
    def model(self) -> str:
        return self._chat.model

    @property
    def usage(self) -> Usage:
        """What was asked for so far."""
        return replace(self._usage, retried=getattr(self._chat, "retries", 0))

    async def complete(self, request: Request) -> Reply:
        """The cached reply, or a fresh one that is cached before it is returned.

        Raises:
            BudgetExceeded: it is not cached and might pass the cost cap.
            UnusableAnswer: the model gives no usable reply to this request.
            TeacherError: it can't be reached, or gives hardly any usable replies.
            DataError: the cache can't be read or written.
        """
        import anyio

        asked = request.canonical(self.model)
        key = digest(asked)
        while (other := self._open.get(key)) is not None:
            await other.wait()
        reply = self._cache.get(key)
        if reply is not None:
            self._usage.cached += 1
            return reply
        answered = self._open[key] = anyio.Event()
        try:
            async with self._in_flight():
                reply = await self._pay(request)
            self._cache.put(key, asked, reply)
        finally:
            del self._open[key]
            answered.set()
        return reply

    def _in_flight(self) -> AbstractAsyncContextManager[object]:
        """A place among the calls that may run at once. Made on first use: before, no loop is running."""
        import anyio

        if self._limit is None:
            return nullcontext()
        if self._room is None:
            self._room = anyio.Semaphore(self._limit)
        return self._room

    async def _pay(self, request: Request) -> Reply:
        amount = self._budget.reserve(*request.worst)
        try:
            reply = await self._chat.complete(request)
        except BaseException as error:
            self._budget.release(amount)
            if isinstance(error, UnusableAnswer):
                self._failed(error)
            raise
        told = reply.prompt_tokens, reply.completion_tokens
        self._budget.settle(amount, *(told if any(told) else request.worst))  # servers that tell no usage must not get past the cap
        self._recent.append(False)
        self._usage.made += 1
        self._usage.tokens_in += reply.prompt_tokens
        self._usage.tokens_out += reply.completion_tokens
        return reply

    def _failed(self, error: UnusableAnswer) -> None:
        """One failure is dropped by who asked; where most fail, something is wrong with the teacher and going on wastes time."""
        self._usage.failed += 1
        self._recent.append(True)
        if sum(self._recent) > TOLERATED:
            raise TeacherError(
                f"stopped: {sum(self._recent)} of the last {len(self._recent)} calls got nothing usable; the last: {error}; "
                "what was answered is cached: mend the teacher and run again to go on from here"
            ) from error
