"""Anthropic's messages: the guarantee on texts, thinking and tools' inputs, read by the real client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway, Script, named, typed
from tests.gateway.test_streaming import delivered, may_leave

PROMPT: dict[str, Any] = {"max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
SAYS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking"), "tool_use": ("input_json_delta", "partial_json")}


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key="sk-client", max_retries=0) as found:
        yield found


def start() -> dict[str, Any]:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
    return {"type": "message_start", "message": {**message, "usage": {"input_tokens": 3, "output_tokens": 1}}}


def block(index: int, kind: str, *pieces: str) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"id": "toolu_1", "name": "look_up", "input": {}},
    }[kind]
    delta, key = SAYS[kind]
    said = [{"type": "content_block_delta", "index": index, "delta": {"type": delta, key: piece}} for piece in pieces]
    opening = {"type": "content_block_start", "index": index, "content_block": {"type": kind, **empty}}
    return [opening, *said, {"type": "content_block_stop", "index": index}]


def end(reason: str = "end_turn") -> list[dict[str, Any]]:
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 12}},
        {"type": "message_stop"},
    ]


def plays(*blocks: list[dict[str, Any]], reason: str = "end_turn") -> Script:
    return Script([named(e) for e in [start(), *(e for b in blocks for e in b), *end(reason)]])


def answers(*content: dict[str, Any], **more: Any) -> Script:
    body = {**start()["message"], "content": list(content), "stop_reason": "end_turn", **more}
    return Script([json.dumps(body).encode()], headers={"content-type": "application/json"})


def said(events: list[dict[str, Any]], index: int) -> str:
    return "".join(e["delta"][SAYS_KEYS[e["delta"]["type"]]] for e in events if e["type"] == "content_block_delta" and e["index"] == index)


SAYS_KEYS = dict(SAYS.values())


def unbroken(events: list[dict[str, Any]]) -> None:
    """Every block is opened and closed once, in turn, and the message ends once."""
    open_block, kinds = None, [e["type"] for e in events]
    assert (kinds[0], kinds[-1], kinds.count("message_stop"), kinds.count("message_delta")) == ("message_start", "message_stop", 1, 1)
    for e in events:
        if e["type"] == "content_block_start":
            assert open_block is None
            open_block = e["index"]
        elif e["type"].startswith("content_block"):
            assert open_block == e["index"]
            open_block = None if e["type"] == "content_block_stop" else open_block
    assert open_block is None


@given(data=st.data())
@settings(max_examples=30)
def test_only_scored_text_arrives_in_every_kind_of_block(data: st.DataObject, gateway: Gateway, texts: Any, chunked: Any) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(SAYS)), min_size=1, max_size=3))
    wholes = [
        data.draw(st.sampled_from(["", " ", FORBIDDEN, f" {FORBIDDEN} "])).join(data.draw(st.lists(texts, min_size=1, max_size=2)))
        for _ in kinds
    ]
    script = plays(*(block(n, kind, *chunked(data, text)) for n, (kind, text) in enumerate(zip(kinds, wholes, strict=True))))
    script.blocks = delivered(data, list(script.blocks))
    got = typed(gateway.post("/v1/messages", {**PROMPT, "stream": True}, script).content)
    unbroken(got)
    flagged = next((n for n, text in enumerate(wholes) if FORBIDDEN in text), len(wholes))
    for number, text in enumerate(wholes):
        assert said(got, number) == (text if number < flagged else may_leave(text) if number == flagged else "")
    assert got[-2]["delta"]["stop_reason"] == ("end_turn" if flagged == len(wholes) else "refusal")
    counters = gateway.counters()
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)


def test_a_clean_stream_passes_event_by_event(gateway: Gateway) -> None:
    events = [
        start(),
        {"type": "ping", "x_unknown": 1.5},
        *block(0, "text", "one ", "two "),
        *block(1, "tool_use", '{"a": ', '"b" '),
        *end(),
    ]
    events.insert(5, {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": f"{FORBIDDEN}=="}})
    got = typed(gateway.post("/v1/messages", {**PROMPT, "stream": True}, Script([named(e) for e in events])).content)
    assert [e for e in got if e["type"] != "content_block_delta"] == [e for e in events if e["type"] != "content_block_delta"]
    assert events[5] in got
    assert (said([e for e in got if "signature" not in e.get("delta", {})], 0), said(got, 1)) == ("one two ", '{"a": "b" ')


@pytest.mark.parametrize("extra", [
    {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"cited_text": f"a {FORBIDDEN}"}}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": FORBIDDEN, "input": {}}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {FORBIDDEN: 1}}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "x_result", "content": [{"title": FORBIDDEN}]}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "x_delta", "x": FORBIDDEN}},
    {"type": "x_event", "x": {"deep": [FORBIDDEN]}},
])  # fmt: skip
def test_whatever_carries_text_is_scored(gateway: Gateway, extra: dict[str, Any]) -> None:
    first = block(0, "text", "one two ")
    script = Script([named(e) for e in [start(), *first[:-1], extra, first[-1], *end()]])
    response = gateway.post("/v1/messages", {**PROMPT, "stream": True}, script)
    assert FORBIDDEN not in response.text
    got = typed(response.content)
    assert (said(got, 0).rstrip(), got[-2]["delta"]["stop_reason"]) == ("one two", "refusal")
    assert got[-2]["charter"]["verdict"]["clause"] == "words"


RESTRICTED: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"say {FORBIDDEN}"}]},
    {"system": FORBIDDEN, **PROMPT},
    {"system": [{"type": "text", "text": FORBIDDEN, "cache_control": {"type": "ephemeral"}}], **PROMPT},
    {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": FORBIDDEN}]}]}]},
    {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"type": FORBIDDEN}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": FORBIDDEN}}]}]},
]  # fmt: skip


@pytest.mark.parametrize("body", RESTRICTED)
@pytest.mark.parametrize("stream", [False, True])
def test_the_upstream_never_hears_of_a_restricted_prompt(gateway: Gateway, body: dict[str, Any], stream: bool) -> None:
    asked = len(gateway.upstream.bodies)
    response = gateway.post("/v1/messages", {"model": "m", "max_tokens": 1, "stream": stream, **body})
    assert len(gateway.upstream.bodies) == asked
    assert (response.headers["x-charter-verdict"], response.headers["x-charter-action"]) == ("flagged", "block")
    if stream:
        unbroken(typed(response.content))
        assert typed(response.content)[-2]["charter"]["stage"] == "prompt"
    else:
        assert (response.json()["content"], response.json()["stop_reason"]) == ([], "refusal")


def test_images_and_schemas_are_no_text(gateway: Gateway) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": FORBIDDEN}}
    body = {"max_tokens": 1, "messages": [{"role": "user", "content": [picture]}], "tools": [{"name": "f", "description": FORBIDDEN}]}
    assert gateway.post("/v1/messages", body, answers({"type": "text", "text": "hi"})).json()["content"] == [{"type": "text", "text": "hi"}]
    assert gateway.upstream.bodies[-1]["messages"] == body["messages"]


@pytest.mark.parametrize("content", [
    [{"type": "text", "text": f"one {FORBIDDEN}"}], [{"type": "thinking", "thinking": f"one {FORBIDDEN}", "signature": "s"}],
    [{"type": "text", "text": "one"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": f"{FORBIDDEN}"}}],
    [{"type": "text", "text": "one"}, {"type": "x_result", "content": [{"url": FORBIDDEN}]}],
])  # fmt: skip
def test_a_whole_reply_is_cut_where_it_is_flagged(gateway: Gateway, content: list[dict[str, Any]]) -> None:
    response = gateway.post("/v1/messages", PROMPT, answers(*content, {"type": "text", "text": "more"}))
    assert FORBIDDEN not in response.text
    body = response.json()
    assert [b.get("text", b.get("thinking")) for b in body["content"]] == ["one"]
    assert (body["stop_reason"], body["charter"]["stage"], response.headers["x-charter-action"]) == ("refusal", "reply", "block")


def test_the_real_client_reads_replies_streams_tools_and_blocks(gateway: Gateway, client: anthropic.Anthropic) -> None:
    ask: dict[str, Any] = {**PROMPT, "system": "be kind"}
    whole = client.messages.create(model=gateway.upstream.plays(answers({"type": "text", "text": "one two"})), **ask)
    assert (whole.content[0].text, whole.stop_reason) == ("one two", "end_turn")  # type: ignore[union-attr]
    script = plays(
        block(0, "thinking", "so ", "it is"), block(1, "text", "one ", "two"), block(2, "tool_use", '{"q": ', '"x y"}'), reason="tool_use"
    )
    with client.messages.stream(model=gateway.upstream.plays(script), **ask) as stream:
        message = stream.get_final_message()
    assert [b.type for b in message.content] == ["thinking", "text", "tool_use"]
    assert (message.content[1].text, message.content[2].input, message.stop_reason) == ("one two", {"q": "x y"}, "tool_use")  # type: ignore[union-attr]
    with client.messages.stream(model=gateway.upstream.plays(plays(block(0, "text", "one ", FORBIDDEN, " two"))), **ask) as stream:
        message = stream.get_final_message()
    assert (message.content[0].text, message.stop_reason) == ("one", "refusal")  # type: ignore[union-attr]
    with client.messages.stream(model="m", max_tokens=1, messages=[{"role": "user", "content": FORBIDDEN}]) as stream:
        assert (stream.get_final_message().stop_reason, stream.get_final_message().content) == ("refusal", [])


def test_errors_come_in_the_clients_own_shape(gateway: Gateway, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.InternalServerError, match="scoring failed"):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": BREAKS}])
    with pytest.raises(anthropic.BadRequestError, match="at least one message"):
        client.messages.create(model="m", max_tokens=1, messages=[])
    script = Script([named(e) for e in [start(), *block(0, "text", "one two")[:2]]] + [b"data: {oops\n\n"])
    with (
        pytest.raises(anthropic.APIStatusError, match="not JSON"),
        client.messages.stream(model=gateway.upstream.plays(script), **PROMPT) as stream,
    ):
        stream.until_done()
    limited = Script(
        [b'{"type": "error",  "error": {"type": "rate_limit_error", "message": "theirs"}}'],
        429,
        {"retry-after": "7", "anthropic-ratelimit-requests-remaining": "0"},
    )
    response = gateway.post("/v1/messages", PROMPT, limited)
    assert (response.status_code, response.content, response.headers["retry-after"]) == (429, limited.blocks[0], "7")
    assert response.headers["anthropic-ratelimit-requests-remaining"] == "0"


def test_the_gateways_key_replaces_the_clients_where_anthropic_looks_for_it(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(upstream_key="sk-ours")
    gateway.post(
        "/v1/messages",
        PROMPT,
        answers(),
        **{"x-api-key": "sk-client", "authorization": "Bearer sk-client", "anthropic-version": "2023-06-01"},
    )
    sent = gateway.upstream.headers[-1]
    assert (sent["x-api-key"], sent.get("authorization"), sent["anthropic-version"]) == ("sk-ours", None, "2023-06-01")


def test_shadow_mode_changes_no_byte(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(mode="shadow")
    before = gateway.counters()["released_after_verdict_chars"]
    script = plays(block(0, "text", "one ", f"{FORBIDDEN} two"))
    assert gateway.post("/v1/messages", {**PROMPT, "stream": True}, script).content == b"".join(script.blocks)
    assert gateway.counters()["released_after_verdict_chars"] - before == len(f" {FORBIDDEN} two")
