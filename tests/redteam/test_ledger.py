"""rounds.json: what is written is read again, damage is refused, and rounds that weren't asked for wait aside."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.errors import DataError
from charter.redteam.ledger import Attack, FamilyCount, Ledger, Round, fingerprint, path_of, read, rows_of, set_aside, sha256, write


def ledger(rounds: int) -> Ledger:
    counts = {"base64": FamilyCount(tried=3, through=1, lost=0)}
    attack = Attack(
        against="a",
        settings="s",
        file="f",
        parents=5,
        missed_plain=0,
        tried=9,
        got_through=2,
        kept=1,
        added=2,
        seconds=1.5,
        families=counts,
    )
    return Ledger(
        seed=4, held_out=["hex"], heldout_set="h", rounds=[Round(round=n, attack=attack if n else None) for n in range(rounds + 1)]
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write(tmp_path, ledger(2))
    assert read(tmp_path) == ledger(2)
    assert read(tmp_path / "nowhere") == Ledger()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"rounds": 3}', '{"schema_version": 2}', '{"rounds": [{"round": 1}]}', '{"surprise": 1}'])
def test_a_damaged_ledger_is_refused_with_its_mend(tmp_path: Path, text: str) -> None:
    path_of(tmp_path).write_text(text)
    with pytest.raises(DataError, match=r"rounds\.json.*remove it"):
        read(tmp_path)


def test_rounds_beyond_those_asked_for_wait_aside_and_come_back(tmp_path: Path) -> None:
    write(tmp_path, ledger(3))
    for number in (1, 2, 3):
        rows_of(tmp_path, number).write_bytes(b"%d" % number)
    fewer = set_aside(tmp_path, 1)
    assert [len(fewer.rounds), len(fewer.aside)] == [2, 2]
    assert [rows_of(tmp_path, n).exists() for n in (1, 2, 3)] == [True, False, False]
    assert read(tmp_path) == fewer
    assert set_aside(tmp_path, 3).rounds == ledger(3).rounds
    assert [rows_of(tmp_path, n).read_bytes() for n in (1, 2, 3)] == [b"1", b"2", b"3"]


def test_without_rounds_no_rows_of_rounds_are_left_to_train_on(tmp_path: Path) -> None:
    for number in (1, 12):
        rows_of(tmp_path, number).write_bytes(b"rows")
    set_aside(tmp_path, 0)
    assert not list(tmp_path.glob("redteam-*.parquet"))
    assert not path_of(tmp_path).exists(), "and a folder without rounds stays without rounds.json"


def test_a_fingerprint_depends_on_every_byte_their_order_and_what_else_counts(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"abc")
    two.write_bytes(b"abd")
    found = {fingerprint(files, more) for files in ([one], [two], [one, two], [two, one], []) for more in ("", "x")}
    assert len(found) == 10
    assert sha256(one) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
