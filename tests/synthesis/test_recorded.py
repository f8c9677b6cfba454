from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.constitution import Constitution, load, parse
from charter.errors import DataError, TeacherError
from charter.records import Turn
from charter.synthesis.items import Written
from charter.synthesis.pools import UNFIT, pools
from charter.synthesis.recorded import RecordedTeacher, spread


def test_prompts_and_replies_are_replayed_in_order(constitution: Constitution, recordings: Path) -> None:
    teacher = RecordedTeacher(constitution, recordings)
    items = anyio.run(teacher.prompts, constitution["cellar"], [], None).kept
    assert len(items) == 200
    assert [t.role for t in items[0].turns] == ["user", "assistant", "user"]
    assert [r.kind for r in anyio.run(teacher.replies, items[2])] == ["refusal", "compliance"]
    assert anyio.run(teacher.replies, items[1]) == ()
    assert (items[1].teacher, items[3].teacher) == ("recorded:authored", "recorded:embedded")
    assert anyio.run(teacher.prompts, constitution["cellar"], [], 5).kept == items[::40]  # spread over the file
    assert anyio.run(teacher.prompts, constitution["cooking"], [], None).kept == []


def test_replies_at_length_come_after_the_short_ones_and_say_who_wrote_them(constitution: Constitution, tmp_path: Path) -> None:
    long = [{"kind": "deflection", "text": "It depends."}, {"kind": "compliance", "text": "1. Open it.", "by": "embedded"}]
    row = {"prompt": "Open it.", "refusal": "No.", "compliance": "Yes.", "at_length": long}
    (tmp_path / "cellar.jsonl").write_text(json.dumps(row), encoding="utf-8")
    teacher = RecordedTeacher(constitution, tmp_path)
    (item,) = anyio.run(teacher.prompts, constitution["cellar"], [], None).kept
    replies = anyio.run(teacher.replies, item)
    assert [(r.kind, r.teacher, r.long, r.restricted) for r in replies] == [
        ("refusal", None, False, False), ("compliance", None, False, True),
        ("deflection", "recorded:authored", True, False), ("compliance", "recorded:embedded", True, True),
    ]  # fmt: skip


@given(st.lists(st.integers(), max_size=50, unique=True), st.integers(1, 60))
def test_spread_rows_are_as_many_as_asked_in_their_order_and_at_even_distances(rows: list[int], n: int) -> None:
    found = spread(rows, n)
    assert len(found) == min(n, len(rows))
    places = [rows.index(row) for row in found]
    steps = [b - a for a, b in zip(places, places[1:], strict=False)]
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)
    assert spread(rows, None) == rows


@pytest.mark.parametrize("prompt", ["", " ", [], ["a", "b"], ["a", 1, "b"], 3, None])
def test_a_malformed_row_is_named_by_file_and_line(constitution: Constitution, tmp_path: Path, prompt: object) -> None:
    (tmp_path / "wine.jsonl").write_text(json.dumps({"prompt": "fine"}) + "\n\n" + json.dumps({"prompt": prompt}))
    with pytest.raises(DataError, match=r"wine\.jsonl:3"):
        anyio.run(RecordedTeacher(constitution, tmp_path).prompts, constitution["wine"], [], None)


def test_lines_end_at_newlines_only(constitution: Constitution, tmp_path: Path) -> None:
    (tmp_path / "wine.jsonl").write_text('{"prompt": "one\u2028two\x85three", "answer": "yes"}', encoding="utf-8")
    teacher = RecordedTeacher(constitution, tmp_path)
    (item,) = anyio.run(teacher.prompts, constitution["wine"], [], None).kept
    assert item.turns == (Turn("user", "one\u2028two\x85three"),)
    assert anyio.run(teacher.replies, item) == (Written("answer", "yes"),)


def test_a_constitution_without_recordings_says_to_pass_a_teacher(constitution: Constitution) -> None:
    with pytest.raises(TeacherError, match=r"'kitchen' has no recorded generations.*--teacher"):
        RecordedTeacher(constitution)


def test_a_shipped_constitution_with_an_edited_clause_says_which() -> None:
    source = load("bank-assistant").source.replace("Telling a person what to buy", "Telling a person whom to marry")
    with pytest.raises(TeacherError, match=r"clause 'investment-advice'.*--teacher"):
        RecordedTeacher(parse(source, "mine.yaml"))


@pytest.mark.parametrize("name", ["general", "bank-assistant", "chemical-weapons"])
def test_every_shipped_clause_has_at_least_sixty_recorded_prompts(name: str) -> None:
    constitution = load(name)
    teacher = RecordedTeacher(constitution)
    counts = {c.id: len(anyio.run(teacher.prompts, c, [], None).kept) for c in constitution.clauses}
    assert {clause for clause, n in counts.items() if n < 60} <= {"child-safety"}


def test_pools_are_harmless_slices_named_by_their_file(constitution: Constitution) -> None:
    items = pools(constitution)
    slices = {item.slice for item in items}
    assert slices >= {"chat", "code", "science", "writing", "multi-turn"}
    assert {(item.side, item.clause) for item in items} == {("permitted", "")}
    assert {item.slice for item in pools(constitution, ["chat"])} == slices - {"chat"}


def test_pools_that_hold_what_a_shipped_constitution_restricts_are_left_out() -> None:
    unfit = set(UNFIT["bank-assistant"])
    assert unfit
    assert not unfit & {item.slice for item in pools(load("bank-assistant"))}


def test_an_unknown_pool_is_an_error(constitution: Constitution) -> None:
    with pytest.raises(DataError, match=r"no benign pool 'chatt'.*chat"):
        pools(constitution, ["chatt"])
