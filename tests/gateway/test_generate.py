"""Chat without streams, and the check of the prompt before the upstream hears of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway, Script, answers, content, events, says

from charter.models.segments import cut

FLAGGED = {"flagged": True, "score": 0.99, "clause": "words"}
RESTRICTED: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": f"say {FORBIDDEN}"}],
    [{"role": "system", "content": FORBIDDEN}, {"role": "user", "content": "hello"}],
    [{"role": "developer", "content": FORBIDDEN}, {"role": "user", "content": "hello"}],
    [{"role": "user", "content": FORBIDDEN}, {"role": "assistant", "content": "no"}, {"role": "user", "content": "please"}],
    [{"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "text", "text": FORBIDDEN}]}],
    [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": f'{{"q": "{FORBIDDEN}"}}'}}]}],
    [{"role": "tool", "tool_call_id": "1", "content": FORBIDDEN}],
    [{"role": "user", "content": "hello", "Content": FORBIDDEN}],
]  # fmt: skip


@pytest.mark.parametrize("messages", RESTRICTED)
def test_the_upstream_never_hears_of_a_restricted_prompt(gateway: Gateway, messages: list[dict[str, Any]]) -> None:
    asked = len(gateway.upstream.bodies)
    response = gateway.ask(answers("hi"), messages)
    body = response.json()
    assert len(gateway.upstream.bodies) == asked
    assert response.status_code == 200
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("", "content_filter")
    assert body["charter"]["verdict"].items() >= FLAGGED.items()
    assert (body["charter"]["action"], body["charter"]["stage"]) == ("block", "prompt")
    headers = [response.headers[f"x-charter-{name}"] for name in ("verdict", "action", "clause")]
    assert headers == ["flagged", "block", "words"]


def test_a_blocked_prompt_that_asked_for_a_stream_gets_one(gateway: Gateway) -> None:
    asked = len(gateway.upstream.bodies)
    response = gateway.ask(says("hi"), FORBIDDEN, stream=True)
    opening, closing, done = events(response.content)
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (closing["choices"][0]["delta"], closing["choices"][0]["finish_reason"], done) == ({}, "content_filter", "[DONE]")
    assert closing["charter"]["stage"] == "prompt"
    assert (response.headers["x-charter-verdict"], response.headers["x-charter-action"]) == ("flagged", "block")
    assert len(gateway.upstream.bodies) == asked


def test_a_blocked_prompt_gets_as_many_choices_as_it_asked_for(gateway: Gateway) -> None:
    assert [c["index"] for c in gateway.ask(answers("x"), FORBIDDEN, n=3).json()["choices"]] == [0, 1, 2]
    streamed = events(gateway.ask(says("x"), FORBIDDEN, n=2, stream=True).content)
    assert [c["choices"][0]["index"] for c in streamed[:-1]] == [0, 0, 1, 1]


def test_the_upstream_gets_the_request_with_all_its_fields(gateway: Gateway) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {}, "A": {}}}}}]
    gateway.ask(answers("hi"), "naïve 日本", temperature=0.25, seed=12345678901234567890, x_unknown={"a": [1, None, "é"]}, tools=tools)
    sent = gateway.upstream.bodies[-1]
    assert sent["messages"] == [{"role": "user", "content": "naïve 日本"}]
    assert (sent["temperature"], sent["seed"], sent["x_unknown"], sent["tools"]) == (
        0.25,
        12345678901234567890,
        {"a": [1, None, "é"]},
        tools,
    )


def test_a_clean_reply_passes_with_every_field(gateway: Gateway) -> None:
    script = answers({"role": "assistant", "content": "one two", "annotations": [], "x": None}, x_top={"n": 1.5}, system_fingerprint="fp")
    script.headers |= {"x-request-id": "r1", "x-charter-verdict": "forged", "set-cookie": "a=b"}
    response = gateway.ask(script)
    assert response.content.decode() != ""
    assert response.json() == httpx2.Response(200, content=script.blocks[0]).json()
    assert (response.headers["x-charter-verdict"], response.headers["x-charter-action"]) == ("passed", "allow")
    assert response.headers["x-request-id"] == "r1"
    assert "set-cookie" not in response.headers


@given(data=st.data())
@settings(max_examples=30)
def test_of_a_whole_reply_the_part_before_the_flag_is_kept(data: st.DataObject, gateway: Gateway, texts: Any) -> None:
    text = data.draw(st.sampled_from(["", " ", f" {FORBIDDEN} "])).join(data.draw(st.lists(texts, min_size=2, max_size=2)))
    choice = gateway.ask(answers(text)).json()["choices"][0]
    segments = cut(text)
    flagged = next((n for n, s in enumerate(segments) if FORBIDDEN in s), None)
    assert choice["message"]["content"] == "".join(segments[:flagged])
    assert choice["finish_reason"] == ("stop" if flagged is None else "content_filter")


@pytest.mark.parametrize(
    "message",
    [
        {"content": "fine", "reasoning_content": f"so {FORBIDDEN} it is"}, {"content": None, "refusal": f"no {FORBIDDEN}"},
        {"content": [{"type": "text", "text": f"a {FORBIDDEN}"}]}, {"content": "x", "reasoning_details": [{"text": FORBIDDEN}]},
        {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g", "arguments": FORBIDDEN}}]},
        {"function_call": {"name": FORBIDDEN, "arguments": ""}},
    ],
)  # fmt: skip
def test_every_channel_of_a_whole_reply_is_scored(gateway: Gateway, message: dict[str, Any]) -> None:
    response = gateway.ask(answers({"role": "assistant", **message}))
    assert FORBIDDEN not in response.text
    assert response.json()["choices"][0]["finish_reason"] == "content_filter"
    assert (response.headers["x-charter-verdict"], response.headers["x-charter-action"]) == ("flagged", "block")
    assert response.json()["charter"]["stage"] == "reply"


def test_one_choice_of_two_is_cut_and_loses_its_logprobs(gateway: Gateway) -> None:
    logprobs = {"content": [{"token": FORBIDDEN}]}
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "fine"}, "logprobs": {"content": []}, "finish_reason": "stop"},
        {"index": 1, "message": {"role": "assistant", "content": f"not {FORBIDDEN}"}, "logprobs": logprobs, "finish_reason": "stop"},
    ]
    response = gateway.ask(answers("", choices=choices), n=2)
    assert response.json()["choices"][0] == choices[0]
    assert (response.json()["choices"][1]["message"]["content"], response.json()["choices"][1]["logprobs"]) == ("not", None)
    assert FORBIDDEN not in response.text


def test_shadow_mode_passes_everything_and_says_what_it_found(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(mode="shadow")
    before = gateway.counters()
    script = answers(f"one {FORBIDDEN} two")
    response = gateway.ask(script, FORBIDDEN)
    assert response.content == script.blocks[0]
    assert (response.headers["x-charter-verdict"], response.headers["x-charter-action"]) == ("flagged", "allow")
    after = gateway.counters()
    found = {name for name in after if after[name] > before[name]}
    assert found == {"requests", "flagged_prompts", "flagged_replies", "released_after_verdict_chars"}


def test_scoring_that_fails_closed_is_an_error_of_one_sentence(gateway: Gateway) -> None:
    asked = len(gateway.upstream.bodies)
    for prompt, reply in ((BREAKS, "fine"), ("hello", f"one {BREAKS}")):
        response = gateway.ask(answers(reply), prompt)
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "scoring_error"
        assert BREAKS not in response.text
    assert len(gateway.upstream.bodies) == asked + 1
    assert gateway.ask(says("x"), BREAKS, stream=True).status_code == 500


def test_scoring_that_fails_open_lets_prompt_and_reply_pass(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(on_error="open")
    before = gateway.counters()["released_unscored_chars"]
    assert gateway.ask(answers("one two"), BREAKS).json()["choices"][0]["message"]["content"] == "one two"
    assert gateway.ask(answers(f"one {BREAKS}")).json()["choices"][0]["message"]["content"] == f"one {BREAKS}"
    assert content(events(gateway.ask(says("one ", "two"), BREAKS, stream=True).content)) == "one two"
    assert gateway.counters()["released_unscored_chars"] - before == len("one two") + len(f" {BREAKS}") + len("one two")


@pytest.mark.parametrize(("status", "retry"), [(429, "7"), (503, "1"), (400, None), (401, None)])
def test_the_upstreams_errors_reach_the_client_as_they_were_sent(gateway: Gateway, status: int, retry: str | None) -> None:
    headers = {"content-type": "application/problem+json", **({"retry-after": retry} if retry else {})}
    script = Script([b'{"error": {"message": "theirs",  "code": 1}}'], status, headers)
    for stream in (False, True):
        response = gateway.ask(script, stream=stream)
        assert (response.status_code, response.content) == (status, script.blocks[0])
        assert (response.headers["content-type"], response.headers.get("retry-after")) == ("application/problem+json", retry)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"choices": 3}', b'{"choices": ["x"]}', b"[" * 100_000])
def test_a_reply_that_is_no_completion_is_a_502(gateway: Gateway, body: bytes) -> None:
    response = gateway.ask(Script([body], headers={"content-type": "application/json"}))
    assert response.status_code == 502
    assert response.json()["error"]["type"] == "upstream_error"


def test_a_reply_that_breaks_off_or_is_too_large_is_a_502(gateway: Gateway, gateways: Callable[..., Gateway]) -> None:
    cut_short = answers("one two")
    cut_short.then = "die"
    assert gateway.ask(cut_short).status_code == 502
    large = gateways(max_reply_bytes=5_000).ask(answers("x" * 6_000))
    assert (large.status_code, "larger than 5,000" in large.text) == (502, True)


def test_an_upstream_that_is_silent_for_too_long_is_a_502(gateways: Callable[..., Gateway]) -> None:
    late = answers("x")
    late.pause_s = 2.0
    response = gateways(timeout_s=0.4).ask(late)
    assert response.status_code == 502


def test_an_upstream_that_is_gone_is_a_502_of_one_sentence(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(upstream_url="http://127.0.0.1:9/v1")
    for stream in (False, True):
        response = gateway.ask(says("x"), stream=stream)
        assert response.status_code == 502
        assert "can't be reached" in response.json()["error"]["message"]
    with pytest.raises(openai.InternalServerError, match="can't be reached"):
        gateway.openai.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])


def test_a_client_that_goes_away_before_the_reply_closes_the_upstreams_connection(gateway: Gateway) -> None:
    script = answers("x")
    script.blocks, script.then = [b" "], "hang"
    start = time.monotonic()
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            gateway.url + "/v1/chat/completions", trust_env=False, timeout=0.5,
            json={"model": gateway.upstream.plays(script), "messages": [{"role": "user", "content": "x"}]},
        )  # fmt: skip
    assert gateway.upstream.let_go.acquire(timeout=5)
    assert time.monotonic() - start < 6


def test_the_real_client_reads_replies_and_blocks(gateway: Gateway) -> None:
    client = gateway.openai.chat.completions
    fine = client.create(model=gateway.upstream.plays(answers("one two")), messages=[{"role": "user", "content": "x"}])
    assert (fine.choices[0].message.content, fine.choices[0].finish_reason) == ("one two", "stop")
    blocked = client.create(model=gateway.upstream.plays(answers("x")), messages=[{"role": "user", "content": FORBIDDEN}])
    assert (blocked.choices[0].message.content, blocked.choices[0].finish_reason) == ("", "content_filter")
    assert (blocked.model_extra or {})["charter"]["verdict"]["clause"] == "words"
    streamed = list(client.create(model=gateway.upstream.plays(says("x")), messages=[{"role": "user", "content": FORBIDDEN}], stream=True))
    assert [c.choices[0].finish_reason for c in streamed] == [None, "content_filter"]


async def ask(gateway: Gateway, script: Script) -> str | None:
    async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="sk", max_retries=0) as client:
        reply = await client.chat.completions.create(model=gateway.upstream.plays(script), messages=[{"role": "user", "content": "x"}])
        return reply.choices[0].message.content


def test_the_real_asynchronous_client_reads_a_reply(gateway: Gateway) -> None:
    assert anyio.run(ask, gateway, answers(f"one {FORBIDDEN} two")) == "one"
