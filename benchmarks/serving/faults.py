"""What breaks while streams run, one fault at a time. Each gives a row: leaks and lost verdicts must be 0."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from serving.client import Streamed, body, stream
from serving.processes import Server, children, ours
from serving.stub import FORBIDDEN

BAD = "words=60,bad=31,pause_ms=10"
CLEAN = "words=60,pause_ms=10"
GUARANTEE = ("released_unscored_chars", "released_after_verdict_chars")


@contextmanager
def gateway(folder: Path, spool: Path | None = None) -> Iterator[tuple[Server, Server, Path]]:
    """A fresh upstream, a fresh gateway in front of it, and its audit log."""
    db = folder / "audit.db"
    with (
        ours("upstream") as upstream,
        ours("charter", f"{upstream.url}/v1", str(db), str(spool or folder / "spool"), log=folder / "log") as charter,
    ):
        yield upstream, charter, db


def upstream_killed(folder: Path, streams: int) -> dict[str, Any]:
    """kill -9 of the upstream with all streams in their middle."""
    with gateway(folder) as (upstream, charter, db):

        async def go() -> list[Streamed]:
            tasks = [asyncio.create_task(stream(charter.url, body("words=2000,bad=1500,pause_ms=20", True))) for _ in range(streams)]
            await asyncio.sleep(1.5)
            upstream.process.send_signal(signal.SIGKILL)
            return await asyncio.gather(*tasks)

        seen = asyncio.run(go())
        told = sum(s.finish == "error" for s in seen)
        row = _row("upstream killed (-9) mid-stream", streams, seen, charter, f"{told} of {streams} clients were told by an error frame")
    return row | _verdicts(db, charter, 2 * streams)


def scorer_killed(folder: Path, streams: int) -> dict[str, Any]:
    """kill -9 of the scorer's process, where the gateway has one below it."""
    with gateway(folder) as (_, charter, db):
        below = children(charter.process.pid)
        if not below:
            return {"fault": "scorer process killed (-9)", "n": 0, "note": "this gateway scores in its own process: nothing to kill"}

        async def go() -> list[Streamed]:
            tasks = [asyncio.create_task(stream(charter.url, body(BAD, True))) for _ in range(streams)]
            await asyncio.sleep(0.2)
            os.kill(below[0], signal.SIGKILL)
            return await asyncio.gather(*tasks)

        row = _row("scorer process killed (-9)", streams, asyncio.run(go()), charter, "")
    return row | _verdicts(db, charter, 2 * streams)


def database_stopped(folder: Path, seconds: float) -> dict[str, Any]:
    """The database takes nothing for a while: another writer holds it."""
    with gateway(folder) as (_, charter, db):
        asyncio.run(stream(charter.url, body(CLEAN, True)))
        holder = sqlite3.connect(db, isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        seen = asyncio.run(_traffic(charter.url, seconds, 16))
        pending = _metric(charter, "charter_audit_pending_bytes")
        holder.execute("ROLLBACK")
        holder.close()
        row = _row(f"database stopped for {seconds:g} s", len(seen), seen, charter, f"{pending:,.0f} bytes waited on disk")
        _drained(charter)
        lost = _metric(charter, "charter_audit_lost_total")
    return row | _verdicts(db, charter, 2 * (len(seen) + 1), lost)


def disk_full(folder: Path, seconds: float) -> dict[str, Any]:
    """The spool lies on a file system of 64 KiB that is full. Needs the right to mount one."""
    spool = folder / "small"
    spool.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", spool], capture_output=True).returncode == 0
    if not mounted:
        return {"fault": "spool's disk full", "n": 0, "note": "skipped: a small file system can't be mounted here"}
    try:
        with gateway(folder, spool / "spool") as (_, charter, db):
            _fill(spool / "filler")
            seen = asyncio.run(_traffic(charter.url, seconds, 16))
            states = _metric(charter, "charter_audit_lost_total")
            row = _row("spool's disk full", len(seen), seen, charter, "verdicts went to the database directly")
            _drained(charter)
        return row | _verdicts(db, charter, 2 * len(seen), states)
    finally:
        subprocess.run(["umount", "-l", spool], check=False)


def disconnects(folder: Path, clients: int, at_once: int = 100) -> dict[str, Any]:
    """Clients that hang up after 10 words."""
    with gateway(folder) as (upstream, charter, db):
        before = charter.resident_mb

        async def go() -> list[Streamed]:
            seen: list[Streamed] = []
            for _ in range(0, clients, at_once):
                seen += await asyncio.gather(*(stream(charter.url, body(CLEAN, True), leave_after=10) for _ in range(at_once)))
            return seen

        seen = asyncio.run(go())
        _until(lambda: httpx2.get(f"{upstream.url}/counts", trust_env=False).json()["open"] == 0)
        _until(lambda: _metric(charter, "guardrails_requests_active") == 0)
        note = f"0 streams left open upstream; memory {before:.0f} -> {charter.resident_mb:.0f} MB"
        row = _row(f"{clients:,} clients that hang up midway", len(seen), seen, charter, note)
        _drained(charter)
        lost = _metric(charter, "charter_audit_lost_total")
    return row | _verdicts(db, charter, 2 * len(seen), lost)


def soak(folder: Path, seconds: float, at_once: int = 16) -> dict[str, Any]:
    """Streams without pause for so long. Memory: Theil-Sen slope of the last two thirds, with its 95 % interval."""
    from scipy.stats import theilslopes

    samples: list[tuple[float, float]] = []
    with gateway(folder) as (_, charter, db):

        async def watch(until: float) -> None:
            while (now := time.monotonic()) < until:
                samples.append((now, charter.resident_mb))
                await asyncio.sleep(0.5)

        async def go() -> list[Streamed]:
            watching = asyncio.create_task(watch(time.monotonic() + seconds))
            seen = await _traffic(charter.url, seconds, at_once, "words=60,bad=31")
            await watching
            return seen

        seen = asyncio.run(go())
        times, megabytes = np.array(samples[len(samples) // 3 :]).T
        slope, _, low, high = theilslopes(megabytes, times / 60)
        note = f"memory {megabytes[-1]:.0f} MB, slope {slope:+.2f} [{low:+.2f}, {high:+.2f}] MB a minute over {len(times)} samples"
        row = _row(f"soak of {seconds:g} s, {at_once} streams at once", len(seen), seen, charter, note)
        _drained(charter)
        lost = _metric(charter, "charter_audit_lost_total")
    return row | _verdicts(db, charter, 2 * len(seen), lost)


def faults(streams: int, seconds: float, clients: int, soak_s: float) -> Iterator[dict[str, Any]]:
    """All of them, one after another."""
    runs: list[Callable[[Path], dict[str, Any]]] = [
        lambda f: upstream_killed(f, streams), lambda f: scorer_killed(f, streams), lambda f: database_stopped(f, seconds),
        lambda f: disk_full(f, min(seconds, 5)), lambda f: disconnects(f, clients), lambda f: soak(f, soak_s),
    ]  # fmt: skip
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            yield run(Path(folder))


async def _traffic(url: str, seconds: float, at_once: int, model: str = BAD) -> list[Streamed]:
    until, seen = time.monotonic() + seconds, list[Streamed]()

    async def one() -> None:
        while time.monotonic() < until:
            seen.append(await stream(url, body(model, True)))

    await asyncio.gather(*(one() for _ in range(at_once)))
    return seen


def _row(fault: str, n: int, seen: list[Streamed], charter: Server, note: str) -> dict[str, Any]:
    counters = httpx2.get(f"{charter.url}/healthz", trust_env=False).json()["counters"]
    leaked = sum(FORBIDDEN in s.words for s in seen)
    return {"fault": fault, "n": n, "leaks": leaked + sum(counters[name] for name in GUARANTEE), "note": note}


def _verdicts(db: Path, charter: Server, expected: int, lost: float = 0.0) -> dict[str, Any]:
    """Rows of the log once the gateway has stopped: one for each prompt and reply."""
    connection = sqlite3.connect(db)
    found = connection.execute("SELECT COUNT(*) FROM charter_verdicts").fetchone()[0]
    connection.close()
    return {"verdicts": found, "expected": expected, "lost": int(max(expected - found, lost))}


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 1_024)
        except OSError:
            return


def _drained(charter: Server) -> None:
    _until(lambda: _metric(charter, "charter_audit_pending_bytes") == 0 and _metric(charter, "charter_audit_queued") == 0)


def _until(true: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not true() and time.monotonic() < end:
        time.sleep(0.1)


def _metric(charter: Server, name: str) -> float:
    for line in httpx2.get(f"{charter.url}/metrics", trust_env=False, timeout=60).text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            return float(line.rsplit(" ", 1)[1])
    return float("nan")
