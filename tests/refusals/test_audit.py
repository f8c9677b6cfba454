"""Many replies: what became of each adds up, blocks are never read as refusals, and no reply is no answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import DataError, NoData
from charter.records import Turn
from charter.refusals.audit import OUTCOMES, Row, judge, rows, summary
from charter.refusals.classify import load

REPLIES = {
    "refused": "I won't help with that, because it's illegal.",
    "incapable": "I can't open links or watch videos.",
    "complied": "Sure! Boil the pasta, fry the garlic, and mix both.",
    "unscored": " ",
}
PROMPT = (Turn("user", "please"),)


def row(outcome: str, harmless: bool | None = None, slice: str = "") -> Row:
    if outcome == "blocked":
        return Row("1", PROMPT, REPLIES["complied"], "content_filter", slice, harmless)
    return Row("1", PROMPT, REPLIES[outcome], "stop", slice, harmless)


@pytest.mark.parametrize("outcome", [*REPLIES, "blocked"])
def test_each_outcome_is_told_from_the_others(outcome: str) -> None:
    assert judge(row(outcome), load()).outcome == outcome


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from([*REPLIES, "blocked"]), st.sampled_from([True, False, None]), st.sampled_from(["a", "b", ""])),
        min_size=1,
        max_size=25,
    )
)
def test_shares_add_up_overall_and_over_slices(drawn: list[tuple[str, bool | None, str]]) -> None:
    judged = [judge(row(*one), load()) for one in drawn]
    found = summary(judged)
    for part, among in [(found["overall"], drawn), *((found["slices"][s], [d for d in drawn if d[2] == s]) for s in found["slices"])]:
        assert part["n"] + part["unscored"] == len(among)
        if part["n"]:
            assert sum(part[name]["value"] for name in OUTCOMES if name != "unscored") == pytest.approx(1)
            assert part["not_answered"]["value"] == pytest.approx(sum(part[name]["value"] for name in ("blocked", "refused", "incapable")))
            assert all(part[name]["low"] <= part[name]["value"] <= part[name]["high"] for name in OUTCOMES if name != "unscored")
    harmless = sum(1 for one in drawn if one[1])
    assert (found["harmless"] is None) == (harmless == 0)
    assert not harmless or found["harmless"]["n"] + found["harmless"]["unscored"] == harmless
    json.dumps(found)


def test_nothing_to_count_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoData):
        summary([])
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(NoData, match="no rows"):
        list(rows(tmp_path / "none.jsonl", True))


def test_what_is_known_of_a_row_is_read(tmp_path: Path) -> None:
    user, said = {"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "c"}
    values = [
        {"id": 7, "messages": [user, said], "label": "refusal", "kind": "refusal", "category": "x"},
        {"messages": [user], "finish_reason": "content_filter", "harmless": True, "slice": "y"},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values))
    turn = Turn("user", "a\u2028b")
    assert list(rows(tmp_path / "r.jsonl", True)) == [
        Row("7", (turn,), "c", "", "x", None, "refusal"),
        Row("2", (turn,), None, "content_filter", "y", True, None),
    ]
    first, second = rows(tmp_path / "r.jsonl", False, harmless=True)
    assert (first.reply, first.harmless, first.label, second.harmless) == (None, True, None, True)


def test_prompt_labels_say_which_prompts_are_harmless(tmp_path: Path) -> None:
    values = [
        {"messages": [{"role": "user", "content": "a"}], "label": label, "kind": "prompt"} for label in ("safe", "harmful", "controversial")
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(v) + "\n" for v in values))
    assert [r.harmless for r in rows(tmp_path / "p.jsonl", False)] == [True, False, None]


def test_a_file_without_replies_says_how_to_ask_for_them(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    with pytest.raises(DataError, match=r"p.jsonl:1: .*--endpoint"):
        list(rows(tmp_path / "p.jsonl", True))
