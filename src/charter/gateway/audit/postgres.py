"""The audit log in PostgreSQL, through psycopg. Nothing waits long for a server that does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from charter.errors import AuditError, MissingExtra
from charter.gateway.audit.finding import Finding
from charter.gateway.audit.store import INSERT, MIGRATION, ORPHANS, REVIEW, TABLES, StoreDown, check_schema

if TYPE_CHECKING:
    import psycopg

WAIT_S = 5
"""For a connection, for a lock, and for a packet to be acknowledged; a statement gets twice that."""
CREATION = 0x43484152
"""Number of the lock under which tables are made: of several workers one does."""


class PostgresStore:
    """A database that others may use too: our tables begin with `charter_`."""

    def __init__(self, url: str, create: bool) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("PostgreSQL needs a package more: pip install 'charter[postgres]', or give a file to --audit") from error
        self._psycopg, self._url = psycopg, url
        self._connection: psycopg.Connection[Any] | None = None
        try:
            if create:
                self._create()
            self._check()
        except AuditError:
            self.close()
            raise
        except (StoreDown, ValueError) as error:
            raise AuditError(f"the audit log at {_where(url)} can't be opened ({_first(error)}); start it, or mend --audit") from error

    def insert(self, findings: Sequence[Finding]) -> None:
        self._run([(INSERT, [astuple(f) for f in findings])])

    def review(self, decisions: Sequence[tuple[str, str, str]]) -> None:
        self._run([(REVIEW, decisions)])

    def expire(self, before: str) -> int:
        return self._run([("DELETE FROM charter_verdicts WHERE time < ?", [(before,)]), (ORPHANS, [()])])

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._open().execute(_theirs(statement), tuple(values)).fetchall()
        except self._psycopg.Error as error:
            self.close()
            raise StoreDown(_first(error)) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _run(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> int:
        """One transaction; returns how many rows its first statement changed."""
        changed = []
        try:
            with self._open().transaction(), self._open().cursor() as cursor:
                for statement, values in statements:
                    cursor.executemany(_theirs(statement), values)
                    changed.append(cursor.rowcount)
        except self._psycopg.Error as error:
            self.close()
            raise StoreDown(_first(error)) from error
        return changed[0]

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None:
            options = f"-c statement_timeout={2_000 * WAIT_S} -c lock_timeout={1_000 * WAIT_S}"
            self._connection = self._psycopg.connect(
                self._url, autocommit=True, connect_timeout=WAIT_S, tcp_user_timeout=1_000 * WAIT_S, options=options
            )
        return self._connection

    def _create(self) -> None:
        if not self._there:
            self._run([("SELECT pg_advisory_xact_lock(?)", [(CREATION,)]), *((statement, [()]) for statement in TABLES)])

    @property
    def _there(self) -> bool:
        return self.rows("SELECT to_regclass('charter_audit')") != [(None,)]

    def _check(self) -> None:
        """Raises: AuditError, StoreDown."""
        if not self._there:
            raise AuditError(f"{_where(self._url)} holds no audit log; `charter serve --audit URL` makes one")
        if self._schema == [(1,)]:
            with self._open().transaction():
                self.rows("SELECT pg_advisory_xact_lock(?)", [CREATION])
                if self._schema == [(1,)]:  # else another worker was faster
                    self._run([(statement, [()]) for statement in MIGRATION])
        check_schema(self._schema, _where(self._url))

    @property
    def _schema(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT schema FROM charter_audit")


def _theirs(statement: str) -> str:
    return statement.replace("%", "%%").replace("?", "%s")


def _where(url: str) -> str:
    """The URL without what opens it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
