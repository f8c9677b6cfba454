"""What was appended is read, in order, until it is delivered; whatever dies in between."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.audit.conftest import a_finding

from charter.errors import AuditError
from charter.gateway.audit.finding import Finding
from charter.gateway.audit.spool import READ_BYTES, Spool


class FullDisk(Spool):
    """Writes as many bytes of a batch as there is room for, then fails as a full disk does."""

    room = 0

    def _write(self, file: int, data: bytes, offset: int) -> None:
        os.pwrite(file, data[: self.room], offset)
        if len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")


def abandoned(spool: Spool) -> None:
    """What the end of its process does to it: its locks are gone, its files stay."""
    for segment in [*spool._left, *([spool._active] if spool._active else [])]:
        os.close(segment.file)


def drained(spool: Spool) -> list[Finding]:
    """Everything in it, delivered."""
    out: list[Finding] = []
    while rows := spool.read()[0]:
        assert spool.read()[0] == rows, "the same until they are delivered"
        spool.delivered()
        out += rows
    return out


@given(sizes=st.lists(st.integers(1, 6), max_size=12), segment=st.sampled_from([1, 500, 2_000, 10**6]), data=st.data())
@settings(max_examples=30)
def test_rows_come_out_once_and_in_order(sizes: list[int], segment: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), segment)
        came: list[Finding] = []
        went: list[Finding] = []
        for size in sizes:
            batch = [a_finding() for _ in range(size)]
            spool.append(batch)
            came += batch
            if data.draw(st.booleans()):
                went += spool.read()[0]
                spool.delivered()
        went += drained(spool)
        assert went == came
        assert spool.pending_bytes == 0
        spool.close()
        assert list(Path(folder).iterdir()) == []


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6), delivered=st.integers(0, 3), torn=st.integers(0, 60))
@settings(max_examples=30)
def test_what_a_dead_process_left_is_taken_over(sizes: list[int], delivered: int, torn: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dead = Spool(Path(folder), 1_000)
        rows = [[a_finding() for _ in range(size)] for size in sizes]
        for batch in rows:
            dead.append(batch)
        gone: list[Finding] = []
        for _ in range(delivered):
            gone += dead.read()[0]
            dead.delivered()
        assert dead._active is not None
        os.pwrite(dead._active.file, a_finding().line().encode()[:torn], dead._active.size)  # killed while it wrote
        abandoned(dead)
        heir = Spool(Path(folder), 1_000)
        # files are taken over by name, so the order between them is not kept; what was delivered of a file may come again
        found = drained(heir)
        assert {f.id for f in found} | {f.id for f in gone} == {f.id for batch in rows for f in batch}
        assert heir.damaged == (torn > 0)
        assert len(list(Path(folder).glob("*.damaged"))) == (torn > 0)
        heir.close()


def test_the_files_of_a_living_process_are_left_alone(tmp_path: Path) -> None:
    living = Spool(tmp_path)
    living.append([a_finding()])
    assert drained(Spool(tmp_path)) == []
    assert len(drained(living)) == 1


@given(room=st.integers(0, 300))
@settings(max_examples=30)
def test_a_full_disk_takes_all_of_a_batch_or_nothing(room: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spool = FullDisk(Path(folder))
        spool.room = 10**6
        first, second, third = ([a_finding()] for _ in range(3))
        spool.append(first)
        spool.room = room
        with pytest.raises(OSError, match="No space"):
            spool.append(second)
        spool.room = 10**6
        spool.append(third)
        assert drained(spool) == [*first, *third]
        assert spool.damaged == 0
        spool.close()


def test_a_row_longer_than_one_read_comes_out_whole(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    rows = [a_finding(), a_finding(content="x" * (3 * READ_BYTES)), a_finding()]
    spool.append(rows)
    assert drained(spool) == rows


def test_a_damaged_line_costs_itself_alone_and_the_file_is_kept_until_it_expires(tmp_path: Path) -> None:
    before, after = a_finding(), a_finding()
    (tmp_path / "0.jsonl").write_text(f"{before.line()}\n{{garbage\n{after.line()}\n")
    spool = Spool(tmp_path)
    assert drained(spool) == [before, after]
    (kept,) = tmp_path.glob("*.damaged")
    spool.expire(kept.stat().st_mtime - 1)
    assert kept.exists()
    spool.expire(kept.stat().st_mtime + 1)
    assert not kept.exists()


def test_a_file_that_was_cut_short_does_not_hold_up_the_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1)
    rows = [a_finding(), a_finding()]
    for row in rows:
        spool.append([row])
    os.truncate(spool._left[0].path, 0)
    assert drained(spool) == rows[1:]
    assert spool.damaged == 1


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append([a_finding()])
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    assert [stat.S_IMODE(f.stat().st_mode) for f in (tmp_path / "spool").iterdir()] == [0o600]


def test_a_folder_that_can_not_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AuditError, match="--audit-spool"):
        Spool(tmp_path / "file" / "spool")
