"""Verdicts without generation, in Charter's form and in NeMo's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway

USER, REPLY = {"role": "user", "content": "hello"}, {"role": "assistant", "content": f"one {FORBIDDEN}"}


def test_a_prompt_and_a_reply_are_told_apart(gateway: Gateway) -> None:
    asked = len(gateway.upstream.bodies)
    fine = gateway.post("/v1/guard/check", {"input": "hello"}).json()
    assert (fine["valid"], fine["stage"], fine["action"], fine["clause"], fine["position"]) == (True, "prompt", "allow", None, None)
    assert fine["guard"] == {"name": "oracle", "hash": "0123456789abcdef"}
    assert [c["name"] for c in fine["categories"]] == ["words", "numbers"]
    prompt = gateway.post("/v1/guard/check", {"messages": [{"role": "user", "content": FORBIDDEN}]}).json()
    reply = gateway.post("/v1/guard/check", {"messages": [USER, REPLY]}).json()
    assert [(f["flagged"], f["stage"], f["clause"], f["action"]) for f in (prompt, reply)] == [
        (True, s, "words", "block") for s in ("prompt", "reply")
    ]
    assert reply["position"] == 1
    assert len(gateway.upstream.bodies) == asked


def test_nemos_form(gateway: Gateway) -> None:
    assert gateway.post("/v1/checks", {"model": "m", "messages": [USER]}).json() == {"status": "passed", "content": "hello"}
    blocked = gateway.post("/v1/checks", {"messages": [USER, REPLY], "guardrails": {"config_id": "x"}}).json()
    assert blocked == {"status": "blocked", "content": "I can't help with that.", "rail": "charter output words"}
    assert gateway.post("/v1/checks", {"messages": [{"role": "user", "content": FORBIDDEN}]}).json()["rail"] == "charter input words"


def test_shadow_mode_finds_and_blocks_nothing(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(mode="shadow")
    found = gateway.post("/v1/guard/check", {"messages": [USER, REPLY]}).json()
    assert (found["flagged"], found["action"]) == (True, "allow")
    assert gateway.post("/v1/checks", {"messages": [USER, REPLY]}).json()["status"] == "passed"


@pytest.mark.parametrize("on_error", ["closed", "open"])
@pytest.mark.parametrize("path", ["/v1/guard/check", "/v1/checks"])
def test_what_cannot_be_scored_is_never_called_harmless(gateways: Callable[..., Gateway], on_error: str, path: str) -> None:
    gateway = gateways(on_error=on_error)
    for messages in ([{"role": "user", "content": BREAKS}], [USER, {"role": "assistant", "content": BREAKS}]):
        response = gateway.post(path, {"messages": messages})
        assert (response.status_code, response.json()["error"]["code"]) == (500, "not_scored")


@pytest.mark.parametrize("body", [{}, {"input": 3}, {"input": "a", "messages": [USER]}, {"messages": []}, {"messages": ["a"]}])
def test_a_request_without_a_conversation_is_a_400(gateway: Gateway, body: dict[str, Any]) -> None:
    assert gateway.post("/v1/guard/check", body).status_code == 400
