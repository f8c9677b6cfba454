"""No verdict is lost: over outages of the database, a full disk, and the death of the process at any point."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.audit.conftest import Postgres, a_finding
from tests.gateway.audit.test_spool import FullDisk, abandoned
from waiting import until

from charter.errors import AuditError
from charter.gateway.audit.finding import Finding, stamp
from charter.gateway.audit.log import AuditLog, open_log
from charter.gateway.audit.spool import Spool
from charter.gateway.audit.store import StoreDown, open_store

STEPS = ("put", "put", "put", "spool", "spool", "deliver", "deliver", "down", "up", "full", "room", "killed", "killed between")


class Flaky:
    """A database that is down when it is told to be; counts what came more than once."""

    def __init__(self) -> None:
        self.kept: dict[str, Finding] = {}
        self.repeated = 0
        self.up = True

    def insert(self, findings: Sequence[Finding]) -> None:
        if not self.up:
            raise StoreDown("it is down")
        self.repeated += sum(f.id in self.kept for f in findings)
        self.kept |= {f.id: f for f in findings}

    def expire(self, before: str) -> int:
        old = [f.id for f in self.kept.values() if f.time < before]
        for name in old:
            del self.kept[name]
        return len(old)

    def review(self, decisions: Sequence[tuple[str, str, str]]) -> None:
        raise NotImplementedError

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    def close(self) -> None:
        pass


@given(steps=st.lists(st.sampled_from(STEPS), max_size=40), room=st.integers(0, 300), segment=st.sampled_from([1, 1_000, 10**6]))
@settings(max_examples=50)
def test_no_verdict_is_lost_over_outages_and_kills(steps: list[str], room: int, segment: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, spool = Flaky(), FullDisk(Path(folder), segment)
        spool.room = 10**6
        log = AuditLog(store, spool)
        safe: set[str] = set()  # all but what a killed process had in memory alone
        new: list[str] = []
        repeats_allowed = 0
        for step in steps:
            match step:
                case "put":
                    finding = a_finding()
                    log.put(finding)
                    new.append(finding.id)
                case "spool":
                    log.spool_once()
                    taken = len(new) - log.queued
                    safe, new = safe | set(new[:taken]), new[taken:]
                case "deliver":
                    log.deliver_once()
                case "down" | "up":
                    store.up = step == "up"
                case "full" | "room":
                    spool.room = room if step == "full" else 10**6
                case "killed" | "killed between":
                    if step == "killed between" and store.up and (rows := spool.read()[0]):
                        store.insert(rows)  # in the database, but the spool has not heard of it
                        repeats_allowed += len(rows)
                    repeats_allowed += len(safe)  # of a file that was delivered in part, the whole comes again
                    abandoned(spool)
                    spool, new = FullDisk(Path(folder), segment), []
                    spool.room = 10**6
                    log = AuditLog(store, spool)
        store.up, spool.room = True, 10**6
        last = a_finding()
        log.put(last)
        while log.queued:
            assert log.spool_once()
        while log.deliver_once() is not None:
            pass
        assert set(store.kept) == safe | {*new, last.id}
        assert store.repeated <= repeats_allowed
        assert log.counts.lost == 0
        assert log.state == "ok"
        assert log.damaged == 0, "a batch that a full disk cut off was taken back"
        log.close()
        assert list(Path(folder).iterdir()) == []


def test_when_disk_and_database_both_fail_the_queue_fills_and_the_rest_is_counted(tmp_path: Path) -> None:
    store, spool = Flaky(), FullDisk(tmp_path)
    log = AuditLog(store, spool, queue_size=5)
    store.up = False
    for _ in range(3):
        log.put(a_finding())
    assert log.spool_once() is False
    assert (log.state, log.queued, log.counts.lost) == ("losing", 3, 0)
    for _ in range(9):
        log.put(a_finding())
    assert (log.queued, log.counts.lost, log.counts.found) == (8, 4, 12)
    store.up = True
    assert log.spool_once()
    assert (log.state, len(store.kept)) == ("unspooled", 3), "past the full disk into the database"
    spool.room = 10**6
    assert log.spool_once()
    assert log.deliver_once()
    assert (log.state, len(store.kept), log.counts.written) == ("ok", 8, 8)


def test_what_an_outage_kept_is_counted_as_replayed(tmp_path: Path) -> None:
    store = Flaky()
    log = AuditLog(store, Spool(tmp_path))

    def served() -> None:
        log.put(a_finding())
        log.spool_once()

    served()
    assert log.deliver_once()
    assert log.deliver_once() is None
    store.up = False
    served()
    assert log.deliver_once() is False
    assert log.state == "spooling"
    assert log.pending_bytes > 0
    served()
    store.up = True
    while log.deliver_once():
        pass
    assert (log.counts.written, log.counts.replayed, log.counts.spooled, log.pending_bytes) == (3, 2, 3, 0)


def test_what_is_older_than_the_limit_goes(tmp_path: Path) -> None:
    store = Flaky()
    log, today = AuditLog(store, Spool(tmp_path), retain_days=30), datetime(2026, 11, 21, tzinfo=UTC)
    for age in (0, 29, 31, 400):
        store.insert([a_finding(id=str(age), time=stamp(today - timedelta(days=age)))])
    log.expire_once(today)
    assert set(store.kept) == {"0", "29"}
    assert log.counts.expired == 2
    endless = AuditLog(store, Spool(tmp_path / "other"))
    endless.expire_once(today + timedelta(days=10_000))
    assert len(store.kept) == 2


def ids(url: str) -> list[str]:
    store = open_store(url)
    try:
        return sorted(name for (name,) in store.rows("SELECT id FROM charter_verdicts"))
    finally:
        store.close()


def test_a_locked_sqlite_file_holds_up_nobody_and_gets_everything_later(tmp_path: Path) -> None:
    url = str(tmp_path / "log.db")
    log = open_log(url)
    blocker = sqlite3.connect(url, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    rows = [a_finding() for _ in range(2_000)]
    for row in rows:
        log.put(row)
    until(lambda: log.counts.spooled == len(rows))
    assert log.counts.written == 0
    blocker.execute("COMMIT")
    blocker.close()
    until(lambda: log.counts.written == len(rows))
    log.close()
    assert ids(url) == sorted(row.id for row in rows)
    assert list((tmp_path / "log.db.spool").iterdir()) == []


def test_closing_writes_what_is_still_in_the_queue(tmp_path: Path) -> None:
    url = str(tmp_path / "log.db")
    log = open_log(url)
    rows = [a_finding() for _ in range(1_234)]
    for row in rows:
        log.put(row)
    log.close(60)
    assert ids(url) == sorted(row.id for row in rows)


def test_a_stopped_server_gets_everything_when_it_is_back(postgres: Postgres, database: str, tmp_path: Path) -> None:
    log = open_log(database, spool=tmp_path / "spool")
    rows = [a_finding() for _ in range(300)]
    log.put(rows[0])
    until(lambda: log.counts.written == 1)
    postgres.stop()
    try:
        for row in rows[1:]:
            log.put(row)
        until(lambda: log.state == "spooling" and log.counts.spooled == len(rows))
    finally:
        postgres.start()
    until(lambda: log.counts.replayed == len(rows) - 1)  # counted last, after the spool has let go of them
    assert log.counts.written == len(rows)
    assert log.state == "ok"
    log.close()
    assert ids(database) == sorted(row.id for row in rows)


KILLED = """
import sys, uuid
from pathlib import Path
from charter.gateway.audit.finding import Finding, now
from charter.gateway.audit.log import open_log

log = open_log(sys.argv[1])
said = 0
while True:
    log.put(Finding(uuid.uuid4().hex, now(), "r", "/", "reply", 0, "g", "h", "enforce", True, 1.0, "c", 1, "block", None, 1.0, None))
    if log.counts.spooled >= said + 50:
        said = log.counts.spooled
        print(said, flush=True)
"""


def test_a_process_killed_with_nine_loses_nothing_that_was_on_disk(tmp_path: Path) -> None:
    url = str(tmp_path / "log.db")
    on_disk = 0
    for _ in range(2):
        with subprocess.Popen([sys.executable, "-c", KILLED, url], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            last = [int(process.stdout.readline()) for _ in range(3)][-1]
            process.send_signal(signal.SIGKILL)
            said = process.stdout.read().split()
            on_disk += max([last, *map(int, said)])
    log = open_log(url)
    until(lambda: log.pending_bytes == 0)
    log.close()
    assert len(ids(url)) >= on_disk
    assert len(set(ids(url))) == len(ids(url))
    assert not any(name.endswith(".jsonl") for name in os.listdir(tmp_path / "log.db.spool"))


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_a_limit_that_keeps_nothing_is_refused(days: float, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="--retain-days"):
        open_log(str(tmp_path / "log.db"), days)
    assert list(tmp_path.iterdir()) == []
