"""Records: examples round-trip through parquet, half-written files never stand, what can't be read is one sentence."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import DataError
from charter.records import (
    Example,
    Exchange,
    Turn,
    check_whole,
    parse_object,
    parse_turns,
    read_examples,
    read_jsonl,
    sha256,
    split_place,
    together,
    write_examples,
    write_text,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURNS = st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=4).map(tuple)
EXAMPLES = st.builds(
    Example, id=TEXT, turns=TURNS, prompt_restricted=st.booleans(), reply_restricted=st.none() | st.booleans(), clause=TEXT,
    side=st.sampled_from(["restricted", "permitted"]), slice=TEXT, family=TEXT, parent=TEXT, teacher=TEXT, seed=st.integers(-(2**63), 2**63 - 1),
    split=st.sampled_from(["train", "dev", "test"]), clause_hash=TEXT,
)  # fmt: skip
ONE = Example("1", (Turn("user", "Hi 😀\u2028\n"),), False, None, "", "permitted", "chat", "plain", "1", "recorded", 0, "train", "")


@settings(max_examples=30)
@given(examples=st.lists(EXAMPLES, max_size=6))
def test_examples_come_back_from_parquet_as_they_were(examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("examples") / "deep" / "examples.parquet"
    assert write_examples(path, examples) == len(examples)
    assert list(read_examples(path)) == list(read_examples(path.parent)) == examples
    assert [p.name for p in path.parent.iterdir()] == ["examples.parquet"]


def test_many_examples_keep_their_order_over_groups_and_are_read_a_group_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    assert write_examples(path, (replace(ONE, id=str(i)) for i in range(4_500))) == 4_500
    assert pq.ParquetFile(path).num_row_groups == 3
    rows = read_examples(path)
    assert [next(rows).id for _ in range(3)] == ["0", "1", "2"]
    assert [e.id for e in rows] == [str(i) for i in range(3, 4_500)]


def test_columns_beside_the_known_ones_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    write_examples(path, [ONE])
    pq.write_table(pq.read_table(path).append_column("note", pa.array(["mine"])), path)
    assert list(read_examples(path)) == [ONE]


@pytest.mark.parametrize("before", [None, "older"])
def test_a_write_that_fails_leaves_the_older_file_and_no_half_of_the_new(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    if before:
        write_examples(path, [replace(ONE, id=before)])

    def broken() -> Iterator[Example]:
        for number in range(3_000):
            yield replace(ONE, id=str(number))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_examples(path, broken())
    assert [p.name for p in tmp_path.iterdir()] == (["examples.parquet"] if before else [])
    if before:
        assert [e.id for e in read_examples(path)] == [before]


@pytest.mark.parametrize("content", [b"", b"not parquet", b"PAR1", b"PAR1" + b"\x00" * 64 + b"PAR1"])
def test_what_is_no_parquet_file_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    path.write_bytes(content)
    _unreadable(path)


def test_a_missing_file_says_how_one_is_made(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.parquet"):
        with pytest.raises(DataError, match="make one with `charter synthesize`"):
            list(read_examples(path))


@pytest.mark.parametrize("column", ["turns", "clause_hash"])
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    write_examples(path, [ONE])
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(DataError, match=f"the column '{column}' is missing"):
        list(read_examples(path))


@pytest.mark.parametrize("turns", [["text"], [None], [[{"role": "user"}]], [[{"role": "user", "content": "x", "name": "y"}]], [[1, 2]]])
def test_a_column_of_another_kind_is_one_sentence(turns: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    write_examples(path, [ONE])
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("turns"), "turns", pa.array(turns)), path)
    _unreadable(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "examples.parquet"
    write_examples(path, [replace(ONE, id=str(i), turns=(Turn("user", "word " * i),)) for i in range(20)])
    return path.read_bytes()


@settings(max_examples=50)
@given(data=st.data())
def test_a_damaged_file_gives_examples_or_one_sentence(data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "examples.parquet"
    content = bytearray(whole)
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), label="cut"):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    complaint: DataError | None = None
    rows: list[Example] = []
    try:
        rows = list(read_examples(path))
    except DataError as error:
        complaint = error
    assert complaint is None or str(path) in str(complaint)
    assert all(isinstance(row, Example) for row in rows)


def _unreadable(path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_examples(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_exchange_ends_in_a_prompt_or_in_a_reply() -> None:
    user, reply = Turn("user", "Hi"), Turn("assistant", "")
    assert (Exchange("x", (user,)).prompt, Exchange("x", (user,)).reply) == ((user,), None)
    assert (Exchange("x", (user, reply)).prompt, Exchange("x", (user, reply)).reply) == ((user,), "")
    assert (Exchange("x", (reply, user)).prompt, Exchange("x", (reply, user)).reply) == ((reply, user), None)
    assert (Exchange("x", ()).prompt, Exchange("x", ()).reply) == ((), None)
    assert ONE.exchange == Exchange("1", ONE.turns)


@pytest.mark.parametrize("packed", [False, True])
def test_jsonl_lines_end_at_line_feeds_only_and_carry_their_numbers(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("rows.jsonl.gz" if packed else "rows.jsonl")
    content = '{"a": "x\u2028y\u0085z"}\r\n\n   \n{"b": 1}'.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert list(read_jsonl(path)) == [(1, {"a": "x\u2028y\u0085z"}), (4, {"b": 1})]


DAMAGED = {
    "none.jsonl": None, "none.jsonl.gz": None, "latin.jsonl": '{"a": "ü"}'.encode("latin-1"), "plain.jsonl.gz": b'{"a": 1}\n',
    "cut.jsonl.gz": gzip.compress(b'{"a": 1}\n' * 1_000)[:-12], "noise.jsonl.gz": gzip.compress(b"")[:10] + b"\xff" * 40,
    "digits.jsonl": b'{"a": ' + b"1" * 5_000 + b"}", "deep.jsonl": b"[" * 100_000, "list.jsonl": b"[1]", "half.jsonl": b'{"a": ',
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_jsonl_file_that_cannot_be_read_is_one_sentence_that_names_it(name: str, tmp_path: Path) -> None:
    content = DAMAGED[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_jsonl(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("line", "why"), [("{", "not JSON"), ("[1]", "not list"), ("null", "not NoneType"), ('"x"', "not str")])
def test_a_line_that_is_no_object_is_told_with_its_place(line: str, why: str) -> None:
    with pytest.raises(DataError, match=rf"^rows\.jsonl:3: .*{why}"):
        parse_object(line, "rows.jsonl:3")


def test_messages_become_turns_and_unknown_keys_are_left_out() -> None:
    assert parse_turns([{"role": "user", "content": "Hi", "name": "x"}, {"role": "tool", "content": ""}], "x") == (
        Turn("user", "Hi"),
        Turn("tool", ""),
    )


@pytest.mark.parametrize(
    "messages",
    [None, [], "text", {"role": "user"}, [1], [{"role": "user"}], [{"role": 1, "content": "x"}], [{"role": "user", "content": None}]],
)
def test_messages_that_are_none_are_told_with_their_place(messages: object) -> None:
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: "):
        parse_turns(messages, "rows.jsonl:3")


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "note.txt"
    write_text(path, "Grüße\r\n😀")
    assert path.read_bytes() == "Grüße\r\n😀".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "x" * 100_000 + "\ud800")
    assert path.read_bytes() == "Grüße\r\n😀".encode()
    assert [p.name for p in path.parent.iterdir()] == ["note.txt"]


def test_split_places_are_even_and_depend_on_the_key_alone() -> None:
    places = sorted(split_place(str(i)) for i in range(2_000))
    assert split_place("a") == split_place("a") != split_place("b")
    assert places[0] >= 0
    assert places[-1] < 1
    assert max(abs(p - (i + 0.5) / 2_000) for i, p in enumerate(places)) < 0.04  # Kolmogorov-Smirnov: 0.036 at 1 %


@given(st.sets(st.sampled_from("abcm"), min_size=1), st.sets(st.sampled_from("abcm")), st.booleans())
def test_files_written_together_are_all_replaced_or_none(
    tmp_path_factory: pytest.TempPathFactory, new: set[str], old: set[str], fails: bool
) -> None:
    folder = tmp_path_factory.mktemp("together") / "out"
    for name in old:
        write_text(folder / name, "old")
    with contextlib.suppress(DataError), together(folder, last="m") as aside:
        for name in sorted(new):
            write_text(aside / name, "new")
        assert {p.name: p.read_text() for p in folder.iterdir() if p != aside} == dict.fromkeys(old, "old")
        if fails:
            raise DataError("the disk is full")
    found = {p.name: p.read_text() for p in folder.iterdir()} if folder.exists() else {}
    assert found == dict.fromkeys(old, "old") | ({} if fails else dict.fromkeys(new, "new"))
    assert folder.exists() == bool(old or not fails)


def test_examples_that_the_manifest_does_not_tell_of_are_refused(tmp_path: Path) -> None:
    (tmp_path / "examples.parquet").write_bytes(b"rows")
    check_whole(tmp_path)
    for told, fits in ((sha256(tmp_path / "examples.parquet"), True), (None, True), ("0" * 64, False)):
        write_text(tmp_path / "manifest.json", json.dumps({"examples": told} if told else {}))
        if fits:
            check_whole(tmp_path)
        else:
            with pytest.raises(DataError, match="charter synthesize"):
                check_whole(tmp_path)
