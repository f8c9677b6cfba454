"""OpenAI's responses: everything is said several times, and each time it is either what passed before or scored anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import FORBIDDEN, Gateway, Script, named, typed
from tests.gateway.test_streaming import delivered, may_leave

KINDS = {
    "message": ("response.output_text", "text"), "reasoning": ("response.reasoning_summary_text", "text"),
    "function_call": ("response.function_call_arguments", "arguments"),
}  # fmt: skip

ECHO = f"never say {FORBIDDEN}"
"""What a response repeats of its request, which is not the model's."""


def item(place: int, kind: str, text: str, status: str = "completed") -> dict[str, Any]:
    base = {"type": kind, "id": f"it_{place}", "status": status}
    if kind == "message":
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if status == "completed" else []
        return {**base, "role": "assistant", "content": content}
    if kind == "reasoning":
        return {**base, "summary": [{"type": "summary_text", "text": text}] if status == "completed" else []}
    return {**base, "call_id": "c1", "name": "look_up", "arguments": text if status == "completed" else ""}


def response(status: str, *output: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "error": None,
        "incomplete_details": None,
        "instructions": ECHO,
    }
    tools = [{"type": "function", "name": "f", "description": ECHO, "parameters": {}, "strict": True}]
    return {
        **base,
        "status": status,
        "output": list(output),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": tools,
        "metadata": {},
        **more,
    }


def spoken(place: int, kind: str, *pieces: str) -> list[dict[str, Any]]:
    stem, key = KINDS[kind]
    where = {
        "item_id": f"it_{place}",
        "output_index": place,
        **({"content_index": 0} if kind == "message" else {"summary_index": 0} if kind == "reasoning" else {}),
    }
    text = "".join(pieces)
    part = {"message": [{"type": "output_text", "text": "", "annotations": []}], "reasoning": [{"type": "summary_text", "text": ""}]}.get(
        kind, []
    )
    part_name = "response.content_part" if kind == "message" else "response.reasoning_summary_part"
    extra = {"logprobs": []} if kind == "message" else {"name": "look_up"} if kind == "function_call" else {}
    return [
        {"type": "response.output_item.added", "output_index": place, "item": item(place, kind, text, "in_progress")},
        *({"type": f"{part_name}.added", **where, "part": p} for p in part),
        *({"type": f"{stem}.delta", **where, "delta": piece, **({"logprobs": []} if kind == "message" else {})} for piece in pieces),
        {"type": f"{stem}.done", **where, key: text, **extra},
        *({"type": f"{part_name}.done", **where, "part": {**p, "text": text}} for p in part),
        {"type": "response.output_item.done", "output_index": place, "item": item(place, kind, text)},
    ]


def streamed(*said: tuple[str, list[str]]) -> list[dict[str, Any]]:
    items = [item(n, kind, "".join(pieces)) for n, (kind, pieces) in enumerate(said)]
    events = [
        {"type": "response.created", "response": response("in_progress")}, {"type": "response.in_progress", "response": response("in_progress")},
        *(e for n, (kind, pieces) in enumerate(said) for e in spoken(n, kind, *pieces)),
        {"type": "response.completed", "response": response("completed", *items, usage={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3})},
    ]  # fmt: skip
    return [{**e, "sequence_number": n} for n, e in enumerate(events)]


def plays(*said: tuple[str, list[str]]) -> Script:
    return Script([named(e) for e in streamed(*said)])


def answers(*output: dict[str, Any]) -> Script:
    return Script([json.dumps(response("completed", *output)).encode()], headers={"content-type": "application/json"})


def read(events: list[dict[str, Any]], place: int) -> str:
    return "".join(e["delta"] for e in events if e["type"].endswith(".delta") and e["output_index"] == place)


@given(data=st.data())
@settings(max_examples=30)
def test_only_scored_text_arrives_in_every_kind_of_item(data: st.DataObject, gateway: Gateway, texts: Any, chunked: Any) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
    wholes = [
        data.draw(st.sampled_from(["", " ", FORBIDDEN, f" {FORBIDDEN} "])).join(data.draw(st.lists(texts, min_size=1, max_size=2)))
        for _ in kinds
    ]
    script = plays(*((kind, chunked(data, text)) for kind, text in zip(kinds, wholes, strict=True)))
    script.blocks = delivered(data, list(script.blocks))
    got = typed(gateway.post("/v1/responses", {"input": "hello", "stream": True}, script).content)
    flagged = next((n for n, text in enumerate(wholes) if FORBIDDEN in text), len(wholes))
    for number, text in enumerate(wholes):
        assert read(got, number) == (text if number < flagged else may_leave(text) if number == flagged else "")
    passed = flagged == len(wholes)
    assert (got[-1]["type"], got[-1]["response"]["status"]) == (
        ("response.completed", "completed") if passed else ("response.incomplete", "incomplete")
    )
    assert [e["sequence_number"] for e in got] == list(range(len(got)))
    assert passed or FORBIDDEN not in json.dumps(
        [e.get("response", {}).get("output", e.get("item", e.get("part", e.get("delta")))) for e in got]
    )
    counters = gateway.counters()
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)


def test_a_clean_stream_of_whole_words_passes_as_it_came_and_is_scored_once(gateway: Gateway) -> None:
    opened = len(gateway.guard.opened)
    script = plays(("reasoning", ["so it is"]), ("message", ["one two"]), ("function_call", ['{"a": 1}']))
    got = typed(gateway.post("/v1/responses", {"input": "hello", "stream": True}, script).content)
    keep = [
        {**e, "sequence_number": 0}
        for e in streamed(("reasoning", ["so it is"]), ("message", ["one two"]), ("function_call", ['{"a": 1}']))
    ]
    assert [{**e, "sequence_number": 0} for e in got if not e["type"].endswith(".delta")] == [
        e for e in keep if not e["type"].endswith(".delta")
    ]
    assert len(gateway.guard.opened) - opened == 1 + 3  # the first item goes on with the prompt's; the tool's name is read too


@pytest.mark.parametrize("change", [
    lambda e: e.update(text=f"not {FORBIDDEN}") if e["type"] == "response.output_text.done" else None,
    lambda e: e["part"].update(text=f"not {FORBIDDEN}") if e["type"] == "response.content_part.done" else None,
    lambda e: e["item"]["content"][0].update(text=f"not {FORBIDDEN}") if e["type"] == "response.output_item.done" else None,
    lambda e: e["response"]["output"][0].update(x_new=FORBIDDEN) if e["type"] == "response.completed" else None,
    lambda e: e.update(type="response.x_new", x={"deep": [FORBIDDEN]}) if e["type"] == "response.content_part.done" else None,
])  # fmt: skip
def test_what_is_said_again_and_differs_is_scored_anew(gateway: Gateway, change: Any) -> None:
    events = streamed(("message", ["one ", "two"]))
    for e in events:
        change(e)
    got = typed(gateway.post("/v1/responses", {"input": "hello", "stream": True}, Script([named(e) for e in events])).content)
    assert FORBIDDEN not in json.dumps([e for e in got if "response" not in e] + [e["response"]["output"] for e in got if "response" in e])
    assert (read(got, 0), got[-1]["response"]["incomplete_details"]) == ("one two", {"reason": "content_filter"})
    assert got[-1]["response"]["output"][0]["content"][0]["text"] == "one two"


RESTRICTED: list[dict[str, Any]] = [
    {"input": FORBIDDEN}, {"input": "a", "instructions": ECHO}, {"prompt": {"id": "p", "variables": {"type": FORBIDDEN}}},
    {"input": [{"role": "user", "content": [{"type": "input_text", "text": FORBIDDEN}]}]},
    {"input": [{"role": "developer", "content": FORBIDDEN}]},
    {"input": [{"type": "function_call_output", "call_id": "c", "output": FORBIDDEN}]},
    {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": FORBIDDEN}]},
]  # fmt: skip


@pytest.mark.parametrize("body", RESTRICTED)
@pytest.mark.parametrize("stream", [False, True])
def test_the_upstream_never_hears_of_a_restricted_prompt(gateway: Gateway, body: dict[str, Any], stream: bool) -> None:
    asked = len(gateway.upstream.bodies)
    answer = gateway.post("/v1/responses", {"model": "m", "stream": stream, **body})
    assert len(gateway.upstream.bodies) == asked
    last = typed(answer.content)[-1]["response"] if stream else answer.json()
    assert (last["status"], last["incomplete_details"], last["output"], last["charter"]["stage"]) == (
        "incomplete",
        {"reason": "content_filter"},
        [],
        "prompt",
    )


@pytest.mark.parametrize("body", [{}, {"input": 3}, {"input": ["a"]}, {"input": "a", "background": True}])
def test_what_cannot_be_guarded_is_a_400(gateway: Gateway, body: dict[str, Any]) -> None:
    assert gateway.post("/v1/responses", {"model": "m", **body}).status_code == 400


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_reply_is_cut_where_it_is_flagged(gateway: Gateway, kind: str) -> None:
    body = gateway.post(
        "/v1/responses", {"input": "hello"}, answers(item(0, "message", "one two"), item(1, kind, f"three {FORBIDDEN}"))
    ).json()
    assert FORBIDDEN not in json.dumps(body["output"])
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("incomplete", "one two")
    assert [i["type"] for i in body["output"]] == ["message", *([kind] if kind != "function_call" else [])]


def test_the_real_client_reads_replies_streams_and_blocks(gateway: Gateway) -> None:
    client = gateway.openai.responses
    whole = client.create(model=gateway.upstream.plays(answers(item(0, "message", "one two"))), input="hello")
    assert (whole.output_text, whole.status) == ("one two", "completed")
    script = plays(("message", ["one t", "wo"]), ("function_call", ['{"a": ', '"b c"}']))
    with client.stream(model=gateway.upstream.plays(script), input="hello") as stream:
        final = stream.get_final_response()
    assert (final.output_text, final.output[1].arguments) == ("one two", '{"a": "b c"}')  # type: ignore[union-attr]
    cut = list(client.create(model=gateway.upstream.plays(plays(("message", ["one ", FORBIDDEN, " two"]))), input="hello", stream=True))
    assert (cut[-1].type, cut[-1].response.output_text) == ("response.incomplete", "one")  # type: ignore[union-attr]
    blocked = client.create(model="m", input=FORBIDDEN)
    assert (blocked.output_text, blocked.incomplete_details.reason) == ("", "content_filter")  # type: ignore[union-attr]
