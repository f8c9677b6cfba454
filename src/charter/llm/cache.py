"""What was asked is never asked again: replies in SQLite, keyed by the hash of the request. A killed run loses nothing.

Values are JSON. The write-ahead log keeps the file whole through `kill -9`, and lets several runs share it.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from charter.errors import DataError
from charter.llm.chat import Chat, Reply, Request
from charter.llm.pool import Budget

if TYPE_CHECKING:
    import anyio

SCHEMA = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, request TEXT NOT NULL, reply TEXT NOT NULL) WITHOUT ROWID"
CHARACTERS_A_TOKEN = 2
"""Lower than any usual text has, so that a reserved cost is never too small."""


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

    hits: int = 0
    misses: int = 0
    tokens_in: int = 0
    """Read by the model for the misses."""
    tokens_out: int = 0


class CachedChat:
    """A chat that asks each question once. Two tasks with the same question wait for one answer."""

    def __init__(self, chat: Chat, cache: Cache, budget: Budget | None = None) -> None:
        self._chat, self._cache = chat, cache
        self._budget = budget or Budget()
        self.usage = Usage()
        self._open: dict[str, anyio.Lock] = {}

    @property
    def model(self) -> str:
        return self._chat.model

    async def complete(self, request: Request) -> Reply:
        """The cached reply, or a fresh one that is cached before it is returned.

        Raises:
            BudgetExceeded: it is not cached and might pass the cost cap.
            TeacherError: the model gives no usable reply.
            DataError: the cache can't be read or written.
        """
        key = request.key(self.model)
        async with self._lock(key):
            reply = self._cache.get(key)
            if reply is not None:
                self.usage.hits += 1
            else:
                reply = await self._pay(request)
                self._cache.put(key, request.canonical(self.model), reply)
        self._open.pop(key, None)
        return reply

    def _lock(self, key: str) -> anyio.Lock:
        import anyio

        return self._open.setdefault(key, anyio.Lock())

    async def _pay(self, request: Request) -> Reply:
        amount = self._budget.reserve(request.size // CHARACTERS_A_TOKEN, request.max_tokens)
        try:
            reply = await self._chat.complete(request)
        except BaseException:
            self._budget.release(amount)
            raise
        self._budget.settle(amount, reply.prompt_tokens, reply.completion_tokens)
        self.usage.misses += 1
        self.usage.tokens_in += reply.prompt_tokens
        self.usage.tokens_out += reply.completion_tokens
        return reply
