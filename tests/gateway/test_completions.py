"""Text completions: the chat's engine on prompts and continuations."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import FORBIDDEN, Gateway, Script, event, events
from tests.gateway.test_streaming import delivered, may_leave


def says(*pieces: str, finish: str = "stop") -> Script:
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    choices = [*({"text": p, "finish_reason": None} for p in pieces), {"text": "", "finish_reason": finish}]
    return Script([event({**base, "choices": [{"index": 0, "logprobs": None, **c}]}) for c in choices] + [event("[DONE]")])


def answers(*texts: str) -> Script:
    choices = [{"index": n, "text": text, "logprobs": {"tokens": [text]}, "finish_reason": "stop"} for n, text in enumerate(texts)]
    body = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": choices, "x": {"kept": [1, None]}}
    return Script([json.dumps(body).encode()], headers={"content-type": "application/json"})


@given(data=st.data())
@settings(max_examples=15)
def test_only_scored_text_arrives(data: st.DataObject, gateway: Gateway, texts: Any, chunked: Any) -> None:
    text = data.draw(st.sampled_from(["", " ", f" {FORBIDDEN} "])).join(data.draw(st.lists(texts, min_size=1, max_size=3)))
    script = says(*chunked(data, text))
    script.blocks = delivered(data, list(script.blocks))
    got = events(gateway.post("/v1/completions", {"prompt": "hello", "stream": True}, script).content)
    assert "".join(c["choices"][0]["text"] for c in got[:-1]) == may_leave(text)
    assert (got[-2]["choices"][0]["finish_reason"], got[-1]) == ("content_filter" if FORBIDDEN in text else "stop", "[DONE]")
    counters = gateway.counters()
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)


def test_of_whole_replies_the_part_that_passes_is_kept(gateway: Gateway) -> None:
    body = gateway.post("/v1/completions", {"prompt": ["a", "b"]}, answers("one two", f"one {FORBIDDEN}")).json()
    assert [(c["text"], c["finish_reason"]) for c in body["choices"]] == [("one two", "stop"), ("one", "content_filter")]
    assert (body["choices"][0]["logprobs"], body["choices"][1]["logprobs"], body["x"]) == (
        {"tokens": ["one two"]},
        None,
        {"kept": [1, None]},
    )


@pytest.mark.parametrize("more", [{"prompt": FORBIDDEN}, {"prompt": ["a", f"b {FORBIDDEN}"]}, {"prompt": "a", "suffix": FORBIDDEN}])
def test_the_upstream_never_hears_of_a_restricted_prompt(gateway: Gateway, more: dict[str, Any]) -> None:
    asked = len(gateway.upstream.bodies)
    body = gateway.post("/v1/completions", {"model": "m", "n": 2, **more}).json()
    assert {(c["text"], c["finish_reason"]) for c in body["choices"]} == {("", "content_filter")}
    assert len(body["choices"]) == 2 * (len(more["prompt"]) if isinstance(more["prompt"], list) else 1)
    assert len(gateway.upstream.bodies) == asked


@pytest.mark.parametrize(
    "more", [{}, {"prompt": [1, 2]}, {"prompt": [[1]]}, {"prompt": []}, {"prompt": "a", "suffix": 3}, {"prompt": ["a"] * 2, "n": 65}]
)
def test_what_cannot_be_scored_is_a_400(gateway: Gateway, more: dict[str, Any]) -> None:
    assert gateway.post("/v1/completions", {"model": "m", **more}).status_code == 400


def test_the_real_client_reads_a_reply_a_stream_and_a_block(gateway: Gateway, gateways: Callable[..., Gateway]) -> None:
    client = gateway.openai.completions
    whole = client.create(model=gateway.upstream.plays(answers("one two")), prompt="hello")
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("one two", "stop")
    stream = list(client.create(model=gateway.upstream.plays(says("one ", FORBIDDEN, " two")), prompt="hello", stream=True))
    assert ("".join(c.choices[0].text for c in stream), stream[-1].choices[0].finish_reason) == ("one", "content_filter")
    blocked = list(client.create(model="m", prompt=FORBIDDEN, stream=True))
    assert [c.choices[0].finish_reason for c in blocked] == [None, "content_filter"]
    with pytest.raises(openai.BadRequestError, match="blocked by the content policy"):
        gateways(on_block="error").openai.completions.create(model="m", prompt=FORBIDDEN)
