"""Streams: what was not scored never leaves, however the upstream cuts its text and however it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import (
    BREAKS,
    FORBIDDEN,
    STALLS,
    Gateway,
    Script,
    chunk,
    content,
    event,
    events,
    finishes,
    plays,
    says,
)  # fmt: skip

from charter.models.segments import cut

Chunker = Callable[[st.DataObject, str], list[str]]


def may_leave(text: str) -> str:
    """What the oracle lets out of a whole text: the segments before the first forbidden one."""
    segments = cut(text)
    flagged = next((n for n, s in enumerate(segments) if FORBIDDEN in s), len(segments))
    return "".join(segments[:flagged])


def delivered(data: st.DataObject, stream: list[bytes]) -> list[bytes]:
    """The same bytes, cut anywhere and inside every character of several bytes; other line ends, comments."""
    if data.draw(st.booleans(), label="CRLF"):
        stream = [e.replace(b"\n", b"\r\n") for e in stream]
    if data.draw(st.booleans(), label="comments"):
        stream = [b": keep-alive " + FORBIDDEN.encode() + b"\n\n" + e for e in stream]
    whole = b"".join(stream)
    inside = [n for n, byte in enumerate(whole) if byte & 0xC0 == 0x80][:150]
    anywhere = data.draw(st.lists(st.integers(0, len(whole)), max_size=20), label="network cuts")
    return [whole[a:b] for a, b in pairwise(sorted({0, len(whole), *inside, *anywhere}))]


@given(data=st.data())
@settings(max_examples=60)
def test_only_scored_text_arrives_and_on_clean_text_all_of_it(data: st.DataObject, gateway: Gateway, texts: Any, chunked: Chunker) -> None:
    parts = data.draw(st.lists(texts, min_size=1, max_size=3))
    text = data.draw(st.sampled_from(["", " ", FORBIDDEN, f" {FORBIDDEN} "])).join(parts)
    pieces = chunked(data, text)
    sent = [f"data: {json.dumps(chunk({'content': p}), ensure_ascii=False)}\n\n".encode() for p in pieces]
    finish = [event(chunk(finish="stop"))] if data.draw(st.booleans(), label="finish_reason") else []
    done = [event("[DONE]")] if data.draw(st.booleans(), label="[DONE]") else []
    got = gateway.stream(Script(delivered(data, [*sent, *finish, *done])))
    assert content(got) == may_leave(text)
    assert finishes(got) == (["content_filter"] if FORBIDDEN in text else ["stop"] if finish else [])
    assert got[-1] == "[DONE]"
    counters = gateway.counters()
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)


CHANNELS = ("content", "reasoning_content", "refusal", "arguments 0", "arguments 1")


def delta_of(channel: str, text: str) -> dict[str, Any]:
    if channel.startswith("arguments"):
        return {"tool_calls": [{"index": int(channel[-1]), "function": {"arguments": text}}]}
    return {channel: text}


def text_of(chunks: list[Any], index: int, channel: str) -> str:
    if not channel.startswith("arguments"):
        return content(chunks, index, channel)
    choices = [c for ch in chunks if isinstance(ch, dict) for c in ch["choices"] if c["index"] == index]
    calls = [call for c in choices for call in c["delta"].get("tool_calls", [])]
    return "".join(call["function"]["arguments"] for call in calls if call["index"] == int(channel[-1]))


@given(data=st.data())
@settings(max_examples=40)
def test_interleaved_channels_and_choices_keep_the_guarantee_each_for_itself(data: st.DataObject, gateway: Gateway) -> None:
    piece = st.sampled_from(["one ", " two", "zyz", "zyva", "naïve 日本", " ", "x" * 70, '{"a": 1', "\n\n"])
    said = data.draw(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(CHANNELS), piece), max_size=25))
    chunks = [chunk(delta_of(channel, text), index=index) for index, channel, text in said]
    got = gateway.stream(plays(*chunks, chunk(finish="stop"), chunk(finish="stop", index=1)), n=2)
    for index in (0, 1):
        whole = {c: "".join(t for i, ch, t in said if (i, ch) == (index, c)) for c in CHANNELS}
        flagged = any(FORBIDDEN in text for text in whole.values())
        assert finishes(got, index) == ["content_filter" if flagged else "stop"]
        for channel, text in whole.items():
            received = text_of(got, index, channel)
            assert text.startswith(received)
            assert FORBIDDEN not in received
            assert flagged or received == text
    counters = gateway.counters()
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)


@pytest.mark.parametrize(("n", "size"), [(200, 1), (200, 3), (1_000, 20_000)])
def test_of_many_words_those_before_the_forbidden_one_arrive(gateway: Gateway, n: int, size: int) -> None:
    words = [f"word{i}" for i in range(n)]
    words[n // 2] = FORBIDDEN
    text = " ".join(words)
    got = gateway.stream(says(*(text[i : i + size] for i in range(0, len(text), size))))
    assert content(got) == " ".join(words[: n // 2])
    assert finishes(got) == ["content_filter"]
    assert got[-2]["charter"]["verdict"] == {"flagged": True, "score": 0.99, "clause": "words", "position": n // 2}
    assert (got[-2]["charter"]["action"], got[-2]["charter"]["stage"]) == ("block", "reply")


def test_the_upstream_is_let_go_as_soon_as_its_reply_is_flagged(gateway: Gateway) -> None:
    start = time.monotonic()
    script = says("one ", FORBIDDEN, " two ", "three ", finish=None, done=False)
    script.then = "hang"
    got = gateway.stream(script)
    assert (content(got), finishes(got), got[-1]) == ("one", ["content_filter"], "[DONE]")
    assert gateway.upstream.let_go.acquire(timeout=5)
    assert time.monotonic() - start < 10


def test_a_client_that_goes_away_closes_the_upstreams_stream(gateway: Gateway) -> None:
    script = says("one ", "two ", finish=None, done=False)
    script.then = "hang"
    body = {"model": gateway.upstream.plays(script), "messages": [{"role": "user", "content": "x"}], "stream": True}
    with httpx2.Client(base_url=gateway.url, trust_env=False) as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_bytes())
    assert gateway.upstream.let_go.acquire(timeout=5)


def test_a_choice_that_is_flagged_ends_and_the_other_goes_on(gateway: Gateway) -> None:
    chunks = [
        chunk({"content": "one "}, index=0), chunk({"content": "uno "}, index=1), chunk({"content": f"{FORBIDDEN} two "}, index=0),
        chunk({"content": "dos"}, index=1), chunk({"content": "three"}, index=0), chunk(finish="stop", index=0),
        chunk(finish="stop", index=1), {"id": "1", "choices": [], "usage": {"total_tokens": 7}},
    ]  # fmt: skip
    got = gateway.stream(plays(*chunks), n=2)
    assert (content(got, 0), finishes(got, 0)) == ("one", ["content_filter"])
    assert (content(got, 1), finishes(got, 1)) == ("uno dos", ["stop"])


def test_two_choices_in_one_chunk_and_text_beside_the_finish_reason(gateway: Gateway) -> None:
    both = chunk({"content": "a b"}, finish="length")
    both["choices"].append({"index": 1, "delta": {"content": f"c {FORBIDDEN}"}, "finish_reason": "stop"})
    got = gateway.stream(plays(both), n=2)
    assert (content(got, 0), finishes(got, 0)) == ("a b", ["length"])
    assert (content(got, 1), finishes(got, 1)) == ("c", ["content_filter"])


def test_everything_that_is_no_text_passes_as_it_came(gateway: Gateway) -> None:
    first = chunk({"role": "assistant", "content": "", "x_delta": {"n": 1.50, "big": 12345678901234567890}}, x_top={"deep": [1, None]})
    first["choices"][0]["x_choice"] = "kept"
    usage = {"id": "1", "choices": [], "usage": {"total_tokens": 9}, "x": "é😀"}
    lonely = {"id": "1", "x_progress": 0.5}
    got = gateway.stream(plays(first, lonely, chunk({"content": "one two"}), chunk(finish="stop"), usage))
    assert got[0] == first
    assert lonely in got
    assert usage in got
    assert content(got) == "one two"


def test_unknown_strings_of_a_delta_are_scored_like_any_text(gateway: Gateway) -> None:
    got = gateway.stream(plays(chunk({"x_thoughts": "one "}), chunk({"x_thoughts": f"{FORBIDDEN} two"}), chunk(finish="stop")))
    assert content(got, field="x_thoughts") == "one"
    assert finishes(got) == ["content_filter"]


def test_a_chunk_that_is_left_without_anything_is_not_sent(gateway: Gateway) -> None:
    got = gateway.stream(says("a", "b", "", "c", " d", finish="stop"))
    assert [c["choices"][0]["delta"] for c in got[:-1]] == [{"role": "assistant", "content": ""}, {"content": "abc"}, {"content": " d"}, {}]


def test_the_rest_finds_its_place_where_the_last_delta_is_empty(gateway: Gateway) -> None:
    got = gateway.stream(plays(chunk({"content": "one two "}), chunk({"content": ""}, finish="stop")))
    assert (content(got), finishes(got)) == ("one two ", ["stop"])


def test_logprobs_leave_only_with_a_text_that_is_whole(gateway: Gateway) -> None:
    pieces = [chunk({"content": t}) for t in ("one", " two", f" {FORBIDDEN}")]
    for piece in pieces:
        piece["choices"][0]["logprobs"] = {"content": [{"token": piece["choices"][0]["delta"]["content"], "logprob": -1.0}]}
    got = gateway.ask(plays(*pieces, chunk(finish="stop")), stream=True)
    assert FORBIDDEN not in got.text
    whole = chunk({"content": "one"}, finish="stop")
    whole["choices"][0]["logprobs"] = {"content": [{"token": "one", "logprob": -1.0}]}
    assert gateway.stream(plays(whole))[0]["choices"][0]["logprobs"] == whole["choices"][0]["logprobs"]


def test_a_tools_name_stands_in_its_first_chunk_and_arguments_are_whole_before_the_next_call(gateway: Gateway) -> None:
    def call(n: int, **function: str) -> dict[str, Any]:
        return {
            "tool_calls": [{"index": n, **({"id": f"call_{n}", "type": "function"} if "name" in function else {}), "function": function}]
        }

    deltas = [
        call(0, name="get_weather", arguments=""),
        call(0, arguments='{"city": '),
        call(0, arguments='"Par'),
        call(0, arguments='is"}'),
    ]
    deltas += [call(1, name="get_time", arguments='{"zone": "UTC"}')]
    got = gateway.stream(plays(*map(chunk, deltas), chunk(finish="tool_calls")))
    calls = [c for ch in got[:-1] for c in ch["choices"][0]["delta"].get("tool_calls", [])]
    assert calls[0] == {"index": 0, "id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    second = next(n for n, c in enumerate(calls) if c["index"] == 1)
    assert "".join(c["function"]["arguments"] for c in calls[:second]) == '{"city": "Paris"}'
    assert calls[second]["function"]["name"] == "get_time"
    assert text_of(got, 0, "arguments 1") == '{"zone": "UTC"}'
    assert finishes(got) == ["tool_calls"]


@pytest.mark.parametrize(
    "function", [{"name": f"run_{FORBIDDEN}", "arguments": "{}"}, {"name": "run", "arguments": f'{{"a": "{FORBIDDEN}"}}'}]
)
def test_tool_calls_are_blocked_by_name_and_by_argument(gateway: Gateway, function: dict[str, str]) -> None:
    delta = {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}
    got = gateway.ask(plays(chunk(delta), chunk(finish="tool_calls")), stream=True)
    assert FORBIDDEN not in got.text
    assert finishes(events(got.content)) == ["content_filter"]


def test_the_last_word_of_the_reasoning_comes_before_the_first_of_the_content(gateway: Gateway) -> None:
    got = gateway.stream(
        plays(chunk({"reasoning": "so it"}), chunk({"reasoning": " is"}), chunk({"content": "Yes it"}), chunk(finish="stop"))
    )
    order = [key for c in got[:-1] for key, text in c["choices"][0]["delta"].items() if text]
    assert order == sorted(order, reverse=True)
    assert (content(got, field="reasoning"), content(got)) == ("so it is", "Yes it")


def test_a_word_cut_by_another_channel_is_still_read_whole(gateway: Gateway) -> None:
    deltas = [{"content": "one " + FORBIDDEN[:3]}, {"reasoning": "hm"}, {"content": FORBIDDEN[3:] + " two"}]
    got = gateway.stream(plays(*map(chunk, deltas), chunk(finish="stop")))
    assert content(got) == "one " + FORBIDDEN[:3]
    assert finishes(got) == ["content_filter"]


def test_an_emoji_cut_in_halves_of_its_surrogate_pair_arrives_whole(gateway: Gateway) -> None:
    blocks = [
        b'data: {"choices":[{"index":0,"delta":{"content":"a \\ud83d"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\\ude00 b\\ud83d"}}]}\n\n',
    ]
    got = gateway.stream(Script([*blocks, event("[DONE]")]))
    assert content(got) == "a 😀 b\ufffd"


@pytest.mark.parametrize("tail", [b"", b"data: [DONE]", b'data: {"choices": []}'])
def test_a_stream_that_just_ends_gives_all_that_was_scored(gateway: Gateway, tail: bytes) -> None:
    script = says("one two th", "ree", finish=None, done=False)
    script.blocks = [*script.blocks, tail]
    got = gateway.stream(script)
    assert (content(got), finishes(got), got[-1]) == ("one two three", [], "[DONE]")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (b"data: {oops\n\n", "not JSON"), (b"data: 3\n\n", "no chunk"), (b'data: {"choices": {"a": 1}}\n\n', "no chunk"),
        (b'data: {"choices": [{"index": "x"}]}\n\n', "no chunk"), (b'data: {"choi', "not JSON"), (b"data: " + b"[" * 100_000 + b"\n\n", "not JSON"),
    ],
)  # fmt: skip
def test_an_event_that_cannot_be_read_ends_the_stream_with_an_error(gateway: Gateway, broken: bytes, said: str) -> None:
    script = says("one two", finish=None, done=False)
    script.blocks = [*script.blocks, broken, *says(" three").blocks[1:]] if broken.endswith(b"\n") else [*script.blocks, broken]
    got = gateway.stream(script)
    assert content(got) == "one two"
    assert said in got[-1]["error"]["message"]


def test_a_stream_that_dies_ends_with_an_error_after_what_was_scored(gateway: Gateway) -> None:
    script = says("one two", finish=None, done=False)
    script.then = "die"
    got = gateway.stream(script)
    assert content(got) == "one two"
    assert got[-1]["error"]["type"] == "upstream_error"
    with pytest.raises(openai.APIError, match="broke off"):
        list(
            gateway.openai.chat.completions.create(
                model=gateway.upstream.plays(script), messages=[{"role": "user", "content": "x"}], stream=True
            )
        )


def test_an_event_beyond_the_limit_ends_the_stream(gateways: Callable[..., Gateway]) -> None:
    got = gateways(max_reply_bytes=5_000).stream(says("one two", "x" * 6_000))
    assert content(got) == "one two"
    assert "larger than 5,000" in got[-1]["error"]["message"]


def test_a_scorer_that_fails_closed_ends_the_choice_without_the_unscored_text(gateway: Gateway) -> None:
    before = gateway.counters()
    got = gateway.stream(says("one two ", f"{BREAKS} three ", "four"))
    assert (content(got), finishes(got), got[-1]) == ("one two", ["content_filter"], "[DONE]")
    assert "scoring failed" in got[-2]["charter"]["error"]
    assert BREAKS not in json.dumps(got)
    after = gateway.counters()
    assert (after["errors"] - before["errors"], after["blocked_replies"] - before["blocked_replies"]) == (1, 1)
    assert after["released_unscored_chars"] == 0


def test_a_scorer_that_fails_open_lets_all_pass_and_counts_it(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(on_error="open")
    before = gateway.counters()
    got = gateway.stream(says("one two ", f"{BREAKS} three ", "four"))
    assert (content(got), finishes(got)) == (f"one two {BREAKS} three four", ["stop"])
    after = gateway.counters()
    assert after["released_unscored_chars"] - before["released_unscored_chars"] == len(f" {BREAKS} three four")
    assert after["errors"] - before["errors"] == 1


def test_a_scorer_that_is_too_slow_follows_the_same_policy(gateways: Callable[..., Gateway]) -> None:
    script = says("one two ", f"{STALLS} three ", "four")
    closed = gateways(score_timeout_s=0.3).stream(script)
    assert (content(closed), finishes(closed)) == ("one two", ["content_filter"])
    assert "longer than 0.3 s" in closed[-2]["charter"]["error"]
    opened = gateways(score_timeout_s=0.3, on_error="open").stream(script)
    assert content(opened) == f"one two {STALLS} three four"


def test_shadow_mode_changes_no_byte_and_records_the_verdict(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(mode="shadow")
    before = gateway.counters()
    script = says("one two ", f"{FORBIDDEN} thr", "ee ", "four")
    assert gateway.ask(script, stream=True).content == b"".join(script.blocks)
    assert content(gateway.stream(says("one two ", "three"))) == "one two three"
    found = {name: n - before[name] for name, n in gateway.counters().items() if n != before[name]}
    assert found == {"requests": 2, "flagged_replies": 1, "released_after_verdict_chars": len(f" {FORBIDDEN} three four")}


def test_scoring_never_blocks_the_event_loop(gateway: Gateway) -> None:
    assert all(name.startswith("AnyIO worker") for name in gateway.guard.threads)
    script = says(f"one {STALLS} two")
    body = {"model": gateway.upstream.plays(script), "messages": [{"role": "user", "content": "x"}], "stream": True}
    with httpx2.Client(base_url=gateway.url, trust_env=False) as http, http.stream("POST", "/v1/chat/completions", json=body) as slow:
        start = time.monotonic()
        gateway.counters()
        assert time.monotonic() - start < 1.0
        assert content(events(slow.read())) == f"one {STALLS} two"


def test_the_real_client_reads_a_stream(gateway: Gateway) -> None:
    script = says("one ", "two ", f"{FORBIDDEN}", " three")
    stream = gateway.openai.chat.completions.create(
        model=gateway.upstream.plays(script), messages=[{"role": "user", "content": "x"}], stream=True
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "one two"
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert (chunks[-1].model_extra or {})["charter"]["verdict"]["clause"] == "words"


async def collect(gateway: Gateway, script: Script) -> str:
    async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="sk", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=gateway.upstream.plays(script), messages=[{"role": "user", "content": "x"}], stream=True
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream])


def test_the_real_asynchronous_client_reads_a_stream(gateway: Gateway) -> None:
    import anyio

    assert anyio.run(collect, gateway, says("naïve ", "日本 ", "three")) == "naïve 日本 three"


def test_the_clients_own_accumulator_puts_tool_calls_together(gateway: Gateway) -> None:
    def call(n: int, **function: str) -> dict[str, Any]:
        return {"tool_calls": [{"index": n, **({"id": f"c{n}", "type": "function"} if "name" in function else {}), "function": function}]}

    deltas = [
        call(0, name="f", arguments=""),
        call(0, arguments='{"a": "b c'),
        call(0, arguments=' d"}'),
        call(1, name="g", arguments="{}"),
    ]
    script = plays(*map(chunk, [{"role": "assistant"}, *deltas]), chunk(finish="tool_calls"))
    with gateway.openai.chat.completions.stream(
        model=gateway.upstream.plays(script), messages=[{"role": "user", "content": "x"}]
    ) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls or []
    assert [(c.id, c.function.name, c.function.arguments) for c in calls] == [("c0", "f", '{"a": "b c d"}'), ("c1", "g", "{}")]
