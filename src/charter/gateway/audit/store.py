"""The database of the audit log: SQLite by a path, PostgreSQL by a URL. The same three tables and statements in both."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Protocol

from charter.errors import AuditError
from charter.gateway.audit.finding import COLUMNS, Finding

SCHEMA = 2
BUSY_S = 5.0
"""How long another writer of the same file is waited for."""
TABLES = (
    "CREATE TABLE IF NOT EXISTS charter_audit (schema INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS charter_verdicts (
        id TEXT PRIMARY KEY, time TEXT NOT NULL, request TEXT NOT NULL, surface TEXT NOT NULL, stage TEXT NOT NULL, choice INTEGER NOT NULL,
        guard TEXT NOT NULL, guard_hash TEXT NOT NULL, mode TEXT NOT NULL, flagged BOOLEAN NOT NULL, score DOUBLE PRECISION NOT NULL,
        clause TEXT, position INTEGER, action TEXT NOT NULL, error TEXT, latency_ms DOUBLE PRECISION NOT NULL, content TEXT,
        key TEXT)""",
    "CREATE INDEX IF NOT EXISTS charter_verdicts_time ON charter_verdicts (time)",
    # decisions apart from verdicts: the log itself is never changed
    "CREATE TABLE IF NOT EXISTS charter_reviews (id TEXT PRIMARY KEY, decision TEXT NOT NULL, time TEXT NOT NULL)",
    f"INSERT INTO charter_audit SELECT {SCHEMA} WHERE NOT EXISTS (SELECT 1 FROM charter_audit)",
)
INSERT = f"INSERT INTO charter_verdicts ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (id) DO NOTHING"
REVIEW = (
    "INSERT INTO charter_reviews (id, decision, time) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET decision = excluded.decision, time = excluded.time"
)
MIGRATION = ("ALTER TABLE charter_verdicts ADD COLUMN key TEXT", f"UPDATE charter_audit SET schema = {SCHEMA}")
"""From schema 1, which did not know whose key it was. A gateway of an older version that still runs goes on writing beside it."""
ORPHANS = "DELETE FROM charter_reviews WHERE id NOT IN (SELECT id FROM charter_verdicts)"


class StoreDown(Exception):
    """The database did not take a statement: nothing of it is kept, and it is worth another try."""


class Store(Protocol):
    """What the log needs of a database. A connection that failed is opened anew by the next call."""

    def insert(self, findings: Sequence[Finding]) -> None:
        """Keep rows for good, those that are there already once.

        Raises:
            StoreDown: none of them is kept.
        """
        ...

    def expire(self, before: str) -> int:
        """Delete the rows of before a time, with their decisions; returns how many.

        Raises:
            StoreDown: none is deleted.
        """
        ...

    def review(self, decisions: Sequence[tuple[str, str, str]]) -> None:
        """Keep (id, decision, time), in place of an earlier decision.

        Raises:
            StoreDown: none is kept.
        """
        ...

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query gives; its places for values are written `?`.

        Raises:
            StoreDown: it gave nothing.
        """
        ...

    def close(self) -> None: ...


def open_store(url: str, create: bool = False) -> Store:
    """The database at a path or URL.

    Args:
        create: make file and tables where there are none.

    Raises:
        AuditError: it can't be opened, is something else, or of another schema.
        MissingExtra: PostgreSQL without psycopg.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from charter.gateway.audit.postgres import PostgresStore

        return PostgresStore(url, create)
    if "://" in url and not url.startswith("sqlite:///"):
        raise AuditError(f"{url.partition('://')[0]}:// is no database of the audit log; give a file for SQLite or postgresql://HOST/NAME")
    return SqliteStore(Path(url.removeprefix("sqlite:///")), create)


def check_schema(found: Sequence[tuple[Any, ...]], where: str) -> None:
    """Whether the log is one that this version reads.

    Raises:
        AuditError: it isn't.
    """
    schema = found[0][0] if found else None
    if schema != SCHEMA:
        raise AuditError(
            f"{where}: this audit log has schema {schema}, this version of Charter reads schema {SCHEMA}; "
            "open it with the version that wrote it, or start a new one elsewhere"
        )


class SqliteStore:
    """A file in WAL mode, readable while it is written. Deleted rows are overwritten with zeros."""

    def __init__(self, path: Path, create: bool) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        if not create and not path.is_file():
            raise AuditError(f"{path}: there is no such audit log; `charter serve --audit {path}` writes one")
        try:
            if create:
                self._create()
            self._check()
        except AuditError:
            self.close()
            raise
        except (StoreDown, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AuditError(f"{path}: can't be opened as an audit log ({reason}); give another file to --audit") from error

    def insert(self, findings: Sequence[Finding]) -> None:
        self._write(INSERT, [astuple(f) for f in findings])

    def review(self, decisions: Sequence[tuple[str, str, str]]) -> None:
        self._write(REVIEW, decisions)

    def expire(self, before: str) -> int:
        n = self._write("DELETE FROM charter_verdicts WHERE time < ?", [(before,)])
        if n:
            self._write(ORPHANS, [()])
            self.rows("PRAGMA wal_checkpoint(TRUNCATE)")  # what was deleted still stands in the WAL until then
        return n

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._open().execute(statement, tuple(values)).fetchall()
        except sqlite3.Error as error:
            self.close()
            raise StoreDown(str(error)) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write(self, statement: str, values: Sequence[Sequence[Any]]) -> int:
        """One transaction; returns how many rows changed."""
        try:
            connection = self._open()
            with connection:
                return connection.executemany(statement, values).rowcount
        except sqlite3.Error as error:
            self.close()
            raise StoreDown(str(error)) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            # mode=rw: a file that went away is an outage, not a reason to start an empty log. Threads take turns by the log's lock.
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = FULL")  # the spool lets go of rows once they are committed
            self._connection.execute("PRAGMA secure_delete = ON")
        return self._connection

    def _create(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # its WAL takes over who may read it
        if not self._path.stat().st_size:
            self.rows("PRAGMA journal_mode = WAL")
        self.rows("BEGIN IMMEDIATE")  # several workers start at once
        for statement in () if self.rows("SELECT 1 FROM sqlite_master LIMIT 1") else TABLES:  # what is there is judged by the check
            self.rows(statement)
        self.rows("COMMIT")

    def _check(self) -> None:
        """Raises: AuditError, StoreDown."""
        names = {name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "charter_audit" not in names:
            raise AuditError(f"{self._path}: this SQLite file is no audit log of Charter's; give another file to --audit")
        if self._schema == [(1,)]:
            self.rows("BEGIN IMMEDIATE")
            for statement in MIGRATION if self._schema == [(1,)] else ():  # another worker may have been faster
                self.rows(statement)
            self.rows("COMMIT")
        check_schema(self._schema, str(self._path))

    @property
    def _schema(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT schema FROM charter_audit")
