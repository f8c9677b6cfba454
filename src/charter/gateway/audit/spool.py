"""Verdicts on disk until they are in the database: append-only files of JSON lines, synced by batch.

A process writes to a file of its own and holds a lock on it, which ends with the process however it dies. Files that nobody
holds were left by such a process; the next one to open the folder takes them over. Rows that are read again after a kill are
in the database once all the same: it knows them by their id.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from charter.errors import AuditError, DataError
from charter.gateway.audit.finding import Finding, parse_finding

SEGMENT_BYTES = 16_777_216
READ_BYTES = 262_144


@dataclass
class Segment:
    """One file: what was written soundly, and how far it has been delivered."""

    path: Path
    file: int
    size: int = 0
    """Bytes up to which rows are whole and synced."""
    done: int = 0
    reading: int = 0
    """Bytes up to which rows were handed out."""
    inherited: bool = False
    """Left behind by a process that died."""
    damaged: bool = False
    """Holds bytes that are no row: the file is kept for a person to look at."""


class Spool:
    """A folder of such files. `append` is for one thread and `read` with `delivered` for another."""

    def __init__(self, folder: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Take over what was left behind.

        Raises:
            AuditError: the folder can't be written.
        """
        self._folder, self._segment_bytes = folder, segment_bytes
        self._lock = Lock()
        self._active: Segment | None = None
        self._left: deque[Segment] = deque()
        self.damaged = 0
        """Files with bytes that are no row, such as the last line of a process killed while it wrote. They are kept as *.damaged."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in sorted(folder.glob("*.jsonl")):
                self._inherit(path)
        except OSError as error:
            raise AuditError(f"{folder}: verdicts can't be spooled here ({error.strerror}); choose another --audit-spool") from error

    @property
    def pending_bytes(self) -> int:
        """What is on disk and not yet in the database."""
        return sum(s.size - s.done for s in [*self._left, *([self._active] if self._active else [])])

    def append(self, findings: Sequence[Finding]) -> None:
        """Write rows and sync them. All or none: what a full disk cut off is taken back.

        Raises:
            OSError: the disk is full or broken.
        """
        data = "".join(f.line() + "\n" for f in findings).encode()
        with self._lock:
            segment = self._room(len(data))
            try:
                self._write(segment.file, data, segment.size)
            except OSError:
                self._take_back(segment)
                raise
            segment.size += len(data)

    def read(self) -> tuple[list[Finding], bool]:
        """The next rows to deliver, none where all are; and whether a process that died left them. Says the same until `delivered`."""
        with self._lock:
            while (segment := self._next()) is not None:
                data = _lines(segment)
                if not data:  # somebody cut the file short
                    self._damage(segment)
                    segment.size = segment.done
                segment.reading = segment.done + len(data)
                rows = self._parsed(segment, data)
                if rows:
                    return rows, segment.inherited
                self._advance(segment)  # nothing but damage
            return [], False

    def delivered(self) -> None:
        """The rows that were read last are in the database for good."""
        with self._lock:
            segment = self._next()
            if segment is not None:
                self._advance(segment)

    def expire(self, before_s: float) -> None:
        """Delete damaged files that were last written before this moment (seconds of the epoch)."""
        for path in self._folder.glob("*.damaged"):
            if path.stat().st_mtime < before_s:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files; what is not delivered stays for the next process."""
        with self._lock:
            for segment in [*self._left, *([self._active] if self._active else [])]:
                if segment.done == segment.size:
                    self._remove(segment)
                else:
                    os.close(segment.file)
            self._left.clear()
            self._active = None

    def _write(self, file: int, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            n = os.pwrite(file, view, offset)
            view, offset = view[n:], offset + n
        os.fsync(file)

    def _take_back(self, segment: Segment) -> None:
        """Cut off a half-written batch; where not even that works, the file is not written to again."""
        try:
            os.ftruncate(segment.file, segment.size)
        except OSError:
            self._left.append(segment)
            self._active = None

    def _room(self, size: int) -> Segment:
        """The file to append to; a new one where that gets too long."""
        if self._active is not None and self._active.size and self._active.size + size > self._segment_bytes:
            self._left.append(self._active)
            self._active = None
        if self._active is None:
            path = self._folder / f"{uuid.uuid4().hex}.jsonl"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._active = Segment(path, file)
        return self._active

    def _inherit(self, path: Path) -> None:
        file = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its process lives
            os.close(file)
            return
        if not path.exists():  # its process ended between the two lines before
            os.close(file)
            return
        self._left.append(Segment(path, file, os.fstat(file).st_size, inherited=True))

    def _next(self) -> Segment | None:
        """The oldest file with rows to deliver; those that have none any more are removed."""
        while self._left and self._left[0].done >= self._left[0].size:
            self._remove(self._left.popleft())
        if self._left:
            return self._left[0]
        return self._active if self._active and self._active.done < self._active.size else None

    def _remove(self, segment: Segment) -> None:
        with suppress(OSError):  # then it is delivered again one day, and counts once
            if segment.damaged:
                segment.path.rename(segment.path.with_suffix(".damaged"))
            else:
                segment.path.unlink(missing_ok=True)
        os.close(segment.file)

    def _advance(self, segment: Segment) -> None:
        segment.done = max(segment.done, segment.reading)
        if segment is self._active and segment.done == segment.size and not segment.damaged:
            with suppress(OSError):
                os.ftruncate(segment.file, 0)  # a kill before this means that rows are delivered twice; they count once
                segment.size = segment.done = segment.reading = 0

    def _parsed(self, segment: Segment, data: bytes) -> list[Finding]:
        rows = []
        for line in data.split(b"\n"):
            try:
                rows += [parse_finding(line, str(segment.path))] if line else []
            except DataError:
                self._damage(segment)
        return rows

    def _damage(self, segment: Segment) -> None:
        self.damaged += not segment.damaged
        segment.damaged = True


def _lines(segment: Segment) -> bytes:
    """Whole lines from where delivery stands: at least one, or the torn end."""
    size = READ_BYTES
    while True:
        data = os.pread(segment.file, min(size, segment.size - segment.done), segment.done)
        if segment.done + len(data) >= segment.size or not data:
            return data
        if (end := data.rfind(b"\n")) >= 0:
            return data[: end + 1]
        size *= 2
