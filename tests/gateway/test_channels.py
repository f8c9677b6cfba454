"""Which fields carry text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.gateway.choices import choice_of, replaced, texts, turns_of

KEYS = st.sampled_from(["content", "role", "id", "type", "index", "tool_calls", "function", "name", "x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8,
)  # fmt: skip


@given(delta=st.dictionaries(KEYS, JSON, max_size=3))
@settings(max_examples=50)
def test_what_is_replaced_by_nothing_keeps_no_text_and_all_else(delta: dict[str, Any]) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": "stop"}
    emptied = replaced(choice, {})
    assert not any(text for _, text in texts(emptied))
    assert [path for path, _ in texts(emptied)] == [path for path, _ in texts(choice)]
    assert (emptied["index"], emptied["finish_reason"]) == (0, "stop")


@given(delta=st.dictionaries(KEYS, JSON, max_size=3))
@settings(max_examples=50)
def test_texts_replaced_by_themselves_change_no_channel(delta: dict[str, Any]) -> None:
    choice = {"message": delta}
    assert replaced(choice, dict(texts(choice))) == choice


def test_a_channel_that_stands_twice_in_one_delta_is_put_once() -> None:
    calls = [{"index": 0, "function": {"arguments": "a"}}, {"index": 0, "function": {"arguments": "b"}}]
    choice = {"delta": {"tool_calls": calls}}
    path = ("delta", "tool_calls", 0, "function", "arguments")
    assert list(texts(choice)) == [(path, "a"), (path, "b")]
    assert list(texts(replaced(choice, {path: "ab"}))) == [(path, "ab"), (path, "")]


@pytest.mark.parametrize(
    "path",
    [("delta", "content"), ("delta", "tool_calls", 3, "function", "arguments"), ("delta", "content", 0, "text"), ("text",)],
)
def test_a_rest_is_put_where_its_channel_lies(path: tuple[str | int, ...]) -> None:
    choice = choice_of(1, path, "rest")
    assert [(p, t) for p, t in texts(choice)] == [(path, "rest")]
    assert (choice["index"], choice["finish_reason"]) == (1, None)


def test_the_turns_of_a_request_hold_all_its_text_and_no_schemas_or_media() -> None:
    messages = [
        {"role": "system", "content": "be kind", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
        {"role": "user", "content": ""},
    ]  # fmt: skip
    turns = turns_of({"messages": messages, "tools": [{"function": {"description": "not read"}}]})
    assert [(t.role, t.content) for t in turns] == [
        ("system", "be kind\nboss"), ("user", "a\nb"), ("assistant", "f\n{}"), ("tool", "42"), ("user", ""),
    ]  # fmt: skip
