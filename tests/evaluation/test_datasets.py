from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import DataError, NoData
from charter.evaluation.datasets import NOT_DRAWN, Item, Set, from_examples, load_folder, sample, within
from charter.records import Example, Exchange, Turn


def row(label: str = "safe", kind: str = "prompt", content: str = "Hello", **more: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "messages": [{"role": "user", "content": content}],
        "label": label,
        "category": "",
        "lang": "en",
        "kind": kind,
        **more,
    }


def write(path: Path, *rows: dict[str, Any]) -> None:
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def test_harmful_is_positive_and_safe_and_benign_are_negative(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", row("harmful"), row("safe"))
    write(tmp_path / "b.jsonl.gz", row("benign", "injection"))
    a, b = load_folder(tmp_path)
    assert (a.name, a.kind, [i.positive for i in a.items]) == ("a", "prompt", [True, False])
    assert (b.name, b.kind, [i.positive for i in b.items], b.items[0].slice) == ("b", "injection", [False], "b")


def test_other_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", row("controversial"), row("safe"), row("controversial"), row("noncompliance_other"))
    (a,) = load_folder(tmp_path)
    assert len(a.items) == 1
    assert a.left_out == {"label controversial": 2, "label noncompliance_other": 1}


@pytest.mark.parametrize("kind", ["refusal", "template", "conversation", "something-new"])
def test_kinds_that_say_nothing_about_harm_are_named_and_left_out(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "a.jsonl", row("harmful", kind), row("safe", kind))
    (a,) = load_folder(tmp_path)
    assert (a.items, a.left_out) == ((), {f"kind {kind}": 2})


def test_a_response_ends_in_the_last_reply_and_a_prompt_before_it(tmp_path: Path) -> None:
    messages = [{"role": r, "content": c} for r, c in [("user", "one"), ("assistant", "two"), ("user", "three")]]
    write(tmp_path / "a.jsonl", row(kind="response", messages=messages))
    write(tmp_path / "b.jsonl", row(kind="prompt", messages=messages))
    write(tmp_path / "c.jsonl", row(kind="prompt", messages=messages[:2]))
    a, b, c = (s.items[0].exchange for s in load_folder(tmp_path))
    assert a.reply == "two"
    assert (b.reply, len(b.prompt)) == (None, 3)
    assert (c.reply, len(c.prompt)) == (None, 1)


def test_two_kinds_in_one_file_become_two_sets(tmp_path: Path) -> None:
    reply = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write(tmp_path / "a.jsonl", row(), row(kind="response", messages=reply), row("refusal", "refusal"))
    assert [(s.name, len(s.items)) for s in load_folder(tmp_path)] == [("a:prompt", 1), ("a:response", 1), ("a:refusal", 0)]


@given(st.text(alphabet=st.sampled_from("ab \u2028\u2029\x85\x0b\x0c\x1c\r\u00e9\U0001f43a"), max_size=30))
def test_lines_end_at_the_line_feed_only(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    folder = tmp_path_factory.mktemp("data")
    write(folder / "a.jsonl", row(content=content), row(content="last"))
    (a,) = load_folder(folder)
    assert [i.exchange.turns[0].content for i in a.items] == [content, "last"]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object is expected"),
        (json.dumps(row(messages=[])), "`messages` must be a list"),
        (json.dumps(row(messages=[{"role": "user"}])), "message 0 needs"),
        (json.dumps({**row(), "label": None}), "needs a `label`"),
        (json.dumps({**row(), "kind": 3}), "needs a `kind`"),
        (json.dumps(row(kind="response")), "needs a turn of the assistant"),
        (json.dumps(row(messages=[{"role": "assistant", "content": "x"}])), "not the assistant's"),
        (json.dumps(row(content="\ud800")), "surrogate"),
    ],
)
def test_a_bad_row_is_told_with_its_file_and_line(tmp_path: Path, bad: str, says: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(row()) + "\n" + bad + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=says) as caught:
        load_folder(tmp_path)
    assert "a.jsonl:2" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b\x08\x00 cut", gzip.compress(b"{}\n" * 100, mtime=0)[:-12], b"not gzip at all", gzip.compress(b"\xff\xfe\n", mtime=0)],
)
def test_a_damaged_file_is_told_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.jsonl\.gz"):
        load_folder(tmp_path)


def test_no_data_is_an_error_not_zero(tmp_path: Path) -> None:
    with pytest.raises(NoData, match=r"holds no \*\.jsonl"):
        load_folder(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_folder(tmp_path / "missing")
    (tmp_path / "a.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no rows"):
        load_folder(tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", row())
    write(tmp_path / "a.jsonl.gz", row())
    with pytest.raises(DataError, match="two files hold a set named 'a'"):
        load_folder(tmp_path)


def test_examples_become_a_set_of_prompts_and_a_set_of_replies(examples: list[Example]) -> None:
    prompt, reply = from_examples(examples)
    assert (prompt.name, prompt.kind, len(prompt.items)) == ("heldout_prompt", "prompt", 4)
    assert (reply.name, reply.kind, len(reply.items)) == ("heldout_reply", "response", 4)
    assert [i.positive for i in prompt.items] == [True, False, True, False]
    assert all((i.clause == "wolves") == i.positive for i in prompt.items + reply.items)
    assert {i.slice for i in prompt.items} == {"restricted:wolves", "permitted:animals"}
    with pytest.raises(NoData, match="'dev'"):
        from_examples(examples, "dev")


@given(st.integers(1, 40), st.integers(0, 5))
def test_a_sample_keeps_order_counts_the_rest_and_follows_its_seed(limit: int, seed: int) -> None:
    items = tuple(Item(Exchange(str(n), (Turn("user", str(n)),)), bool(n % 2), "s") for n in range(30))
    (drawn,) = sample([Set("a", "prompt", items)], limit, seed)
    numbers = [int(i.exchange.id) for i in drawn.items]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + drawn.left_out.get(NOT_DRAWN, 0) == 30
    assert sample([Set("a", "prompt", items)], limit, seed) == [drawn]


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=12), min_size=1, max_size=6), st.integers(1, 400), st.integers(0, 99))
def test_a_token_budget_is_shared_evenly_and_what_a_small_set_leaves_is_used(sizes: list[list[int]], tokens: int, seed: int) -> None:
    sets = [
        Set(str(n), "prompt", tuple(Item(Exchange(f"{n}-{m}", (Turn("user", "x" * size),)), False, "s") for m, size in enumerate(own)))
        for n, own in enumerate(sizes)
    ]

    def count(exchange: Exchange) -> int:
        return len(exchange.turns[0].content)

    kept = within(sets, tokens, count, seed)
    assert kept == within(sets, tokens, count, seed)
    spent = [sum(count(i.exchange) for i in s.items) for s in kept]
    least = [len(s.items) == 1 for s in kept]
    whole = [len(s.items) == len(own) for s, own in zip(kept, sizes, strict=True)]
    assert sum(n for n, one in zip(spent, least, strict=True) if not one) <= tokens
    for s, own, n in zip(kept, sizes, range(len(sizes)), strict=True):
        assert len(s.items) + s.left_out.get("not drawn (limit)", 0) == len(own)
        assert [i.exchange.id for i in s.items] == [i.exchange.id for i in sets[n].items if i in s.items], "the order stays"
    if sum(map(sum, sizes)) <= tokens:
        assert all(whole)
    assert all(sum(own) > tokens // len(sets) for own, all_of_it in zip(sizes, whole, strict=True) if not all_of_it), (
        "an equal share is kept"
    )
