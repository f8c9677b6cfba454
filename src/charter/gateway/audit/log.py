"""The log itself: verdicts are handed over at once, written to the spool by one thread, and from there to the database by another.

event loop --queue--> spool (synced) --> database

A slow or dead database only makes the spool grow; it is replayed when the database is back, by the next process if need be.
A full disk is bridged by writing to the database directly. Only where both fail is there nothing but the queue, and what
does not fit into it is counted as lost: the verdict was enforced all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from time import monotonic

from charter.errors import AuditError
from charter.gateway.audit.finding import Finding, stamp
from charter.gateway.audit.spool import Spool
from charter.gateway.audit.store import Store, StoreDown, open_store

QUEUE = 20_000
BATCH = 500
RETRY_S = (0.1, 5.0)
"""First wait after a failure, and the longest; it doubles."""
EXPIRY_S = 3_600.0
CLOSE_S = 5.0
log = logging.getLogger("charter.gateway")


@dataclass(slots=True)
class Counts:
    """Totals since the log was opened."""

    found: int = 0
    spooled: int = 0
    """Rows written to the spool."""
    written: int = 0
    """Rows that the database has taken."""
    replayed: int = 0
    """Of these, rows that an outage or the death of a process had kept on disk."""
    lost: int = 0
    """Verdicts that found the queue full, because neither the spool's disk nor the database took any."""
    expired: int = 0


class AuditLog:
    """Hand over with `put`; everything else happens in threads, from `start` to `close`."""

    def __init__(self, store: Store, spool: Spool, retain_days: float | None = None, queue_size: int = QUEUE) -> None:
        self._store, self._spool, self._retain = store, spool, retain_days
        self._queue: Queue[Finding] = Queue(queue_size)
        self._hand: list[Finding] = []
        """Taken out of the queue, and not on disk yet."""
        self._turn = Lock()
        self._wake, self._closing = Event(), Event()
        self._threads: list[Thread] = []
        self._expired_at: float | None = None
        self._behind = False
        """What is delivered was kept over an outage."""
        self.counts = Counts()
        self.database_up = self.spool_up = True

    @property
    def queued(self) -> int:
        """Verdicts in memory alone."""
        return self._queue.qsize() + len(self._hand)

    @property
    def pending_bytes(self) -> int:
        """What waits on disk for the database."""
        return self._spool.pending_bytes

    @property
    def damaged(self) -> int:
        """Files of the spool with a line that could not be read."""
        return self._spool.damaged

    @property
    def state(self) -> str:
        """ok; spooling: the database is down; unspooled: the disk is full; losing: both."""
        if self.spool_up:
            return "ok" if self.database_up else "spooling"
        return "unspooled" if self.database_up else "losing"

    def put(self, finding: Finding) -> None:
        """Hand over a verdict. Never waits."""
        self.counts.found += 1
        try:
            self._queue.put_nowait(finding)
        except Full:
            self.counts.lost += 1

    def start(self) -> AuditLog:
        """Start the threads."""
        self._threads = [Thread(target=work, name=f"charter-audit-{work.__name__}") for work in (self._spooling, self._delivering)]
        for thread in self._threads:
            thread.daemon = True  # what is on disk is safe; nothing else may hold up the end of the process
            thread.start()
        return self

    def close(self, within_s: float = CLOSE_S) -> None:
        """Put everything on disk, and into the database what it takes at once; the rest is replayed by the next process."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.set()
        deadline = monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.1, deadline - monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return  # files and connection are still in use; the process ends and lets go of them
        if self._hand or not self._queue.empty():
            log.error("%d verdicts were in memory alone when the audit log closed, and are lost", self.queued)
            self.counts.lost += self.queued
        self._spool.close()
        self._store.close()

    def spool_once(self, wait_s: float = 0.0) -> bool:
        """Bring a batch from the queue to disk, or straight into the database where the disk is full. False: neither took it."""
        if not self._hand:
            self._hand = self._taken(wait_s)
        if not self._hand:
            return True
        try:
            self._spool.append(self._hand)
        except OSError as error:
            self._say("spool_up", False, f"verdicts can't be spooled ({error.strerror}); they go to the database directly")
            return self._past_the_spool()
        self._say("spool_up", True, "verdicts are spooled again")
        self.counts.spooled += len(self._hand)
        self._hand = []
        self._wake.set()
        return True

    def deliver_once(self) -> bool | None:
        """Bring rows from the spool to the database. None: there were none; False: the database took none."""
        try:
            rows, inherited = self._spool.read()
        except OSError as error:
            log.error("the spool of verdicts can't be read (%s)", error.strerror)
            return False
        if not rows:
            self._behind = False
            return None
        if not self._insert(rows):
            self._behind = True
            return False
        self._spool.delivered()
        self.counts.replayed += len(rows) if inherited or self._behind else 0
        return True

    def expire_once(self, now: datetime) -> None:
        """Delete what is older than the retention limit."""
        if self._retain is None:
            return
        before = now - timedelta(days=self._retain)
        try:
            with self._turn:
                self.counts.expired += self._store.expire(stamp(before))
            self._spool.expire(before.timestamp())
        except (StoreDown, OSError) as error:
            log.warning("old verdicts were not deleted (%s); they will be within the hour", error)

    def _taken(self, wait_s: float) -> list[Finding]:
        """Up to a batch out of the queue."""
        out: list[Finding] = []
        try:
            out.append(self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait())
            while len(out) < BATCH:
                out.append(self._queue.get_nowait())
        except Empty:
            pass
        return out

    def _past_the_spool(self) -> bool:
        if not self._insert(self._hand):
            return False
        self._hand = []
        return True

    def _insert(self, rows: Sequence[Finding]) -> bool:
        try:
            with self._turn:
                self._store.insert(rows)
        except StoreDown as error:
            self._say("database_up", False, f"the audit database takes nothing ({error}); verdicts are kept on disk")
            return False
        self._say("database_up", True, "the audit database is back; what was kept is replayed")
        self.counts.written += len(rows)
        return True

    def _say(self, what: str, works: bool, sentence: str) -> None:
        """Log a change of state, once."""
        if getattr(self, what) != works:
            setattr(self, what, works)
            log.warning(sentence)

    def _spooling(self) -> None:
        wait = RETRY_S[0]
        while True:
            closing = self._closing.is_set()
            if self.spool_once(0.0 if closing else 0.2):
                wait = RETRY_S[0]
                if closing and not self._hand and self._queue.empty():
                    return
            elif closing:
                return
            else:
                self._closing.wait(wait)
                wait = min(2 * wait, RETRY_S[1])

    def _delivering(self) -> None:
        wait = RETRY_S[0]
        while True:
            spooled = not self._threads[0].is_alive()  # asked first: what it wrote in its last moment is still to be read
            if self._expired_at is None or monotonic() - self._expired_at > EXPIRY_S:
                self._expired_at = monotonic()
                self.expire_once(datetime.now(UTC))
            done = self.deliver_once()
            if done:
                wait = RETRY_S[0]
            elif self._closing.is_set():
                if done is False or spooled:
                    return
                self._threads[0].join(0.05)
            elif done is None:
                self._wake.wait(60.0)
                self._wake.clear()
            else:
                self._closing.wait(wait)
                wait = min(2 * wait, RETRY_S[1])


def open_log(url: str, retain_days: float | None = None, spool: Path | None = None) -> AuditLog:
    """Open database and spool, and start.

    Args:
        spool: folder; beside an SQLite file, or `charter-audit.spool` here, if left out.

    Raises:
        AuditError: one of them can't be opened, or the log is of another schema.
        MissingExtra: PostgreSQL without psycopg.
    """
    if retain_days is not None and not retain_days > 0:
        raise AuditError(f"verdicts can't be kept for {retain_days:g} days; give --retain-days a number above 0")
    store = open_store(url, create=True)
    beside = Path("charter-audit.spool") if url.startswith("postgres") else Path(url.removeprefix("sqlite:///") + ".spool")
    return AuditLog(store, Spool(spool or beside), retain_days).start()
