"""LiteLLM's generic guardrail: each answer covers all that was sent, and a growing text costs only what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway
from tests.gateway.test_streaming import may_leave

from charter.models.segments import cut

PATH = "/beta/litellm_basic_guardrail_api"


def asks(gateway: Gateway, kind: str, *texts: str, call: str | None = None, **more: Any) -> dict[str, Any]:
    body = {"input_type": kind, "texts": list(texts), "litellm_call_id": call, "request_data": {}, **more}
    answer: dict[str, Any] = gateway.post(PATH, body).json()
    return answer


@given(data=st.data())
@settings(max_examples=15)
def test_of_a_growing_text_only_what_may_leave_is_shown(data: st.DataObject, gateway: Gateway, texts: Any, chunked: Any) -> None:
    text = data.draw(st.sampled_from(["", " ", FORBIDDEN])).join(data.draw(st.lists(texts, min_size=1, max_size=2)))
    call, so_far, shown = uuid4().hex, "", ""
    asks(gateway, "request", "hello", call=call)
    for piece in chunked(data, text):
        so_far += piece
        answer = asks(gateway, "response", so_far, call=call)
        assert (answer["action"] == "BLOCKED") == (FORBIDDEN in so_far)
        if answer["action"] == "BLOCKED":
            break
        (held,) = answer["stream_holdback_chars"]
        shown = so_far[: len(so_far) - held]
        assert may_leave(text).startswith(shown)
        assert held <= 64


@pytest.mark.parametrize("n", [20, 80])
def test_the_cost_grows_with_the_text_and_not_with_its_square(gateway: Gateway, n: int) -> None:
    words, call = [f"word{i} " for i in range(n)], uuid4().hex
    asks(gateway, "request", "hello", call=call)
    opened, read = len(gateway.guard.opened), gateway.guard.n_read
    for upto in range(1, n + 1):
        assert asks(gateway, "response", "".join(words[:upto]), call=call)["action"] == "NONE"
    assert len(gateway.guard.opened) == opened
    assert gateway.guard.n_read - read <= 2 * len(cut("".join(words)))


def test_the_open_word_is_judged_as_it_stands_and_read_on(gateway: Gateway) -> None:
    call = uuid4().hex
    asks(gateway, "request", "hello", call=call)
    assert asks(gateway, "response", f"one {FORBIDDEN[:4]}", call=call) == {"action": "NONE", "stream_holdback_chars": [1 + 4]}
    blocked = asks(gateway, "response", f"one {FORBIDDEN}", call=call)
    assert (blocked["action"], "clause words" in blocked["blocked_reason"]) == ("BLOCKED", True)


@pytest.mark.parametrize("more", [
    {"kind": "request", "texts": [FORBIDDEN]},
    {"kind": "request", "texts": ["a"], "structured_messages": [{"role": "system", "content": FORBIDDEN}]},
    {"kind": "response", "texts": ["fine", FORBIDDEN]},
    {"kind": "response", "texts": [], "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": FORBIDDEN}}]},
])  # fmt: skip
def test_whatever_carries_text_is_scored_known_call_or_not(gateway: Gateway, more: dict[str, Any]) -> None:
    kind, texts, rest = more["kind"], more["texts"], {k: v for k, v in more.items() if k not in ("kind", "texts")}
    assert asks(gateway, kind, *texts, **rest)["action"] == "BLOCKED"
    assert asks(gateway, kind, *texts, call=uuid4().hex, **rest)["action"] == "BLOCKED"


def test_a_text_that_does_not_go_on_from_the_last_is_read_anew(gateway: Gateway) -> None:
    call = uuid4().hex
    asks(gateway, "response", "one two three", call=call)
    assert asks(gateway, "response", f"other {FORBIDDEN}", call=call)["action"] == "BLOCKED"


def test_failures_and_shadow_mode_follow_the_settings(gateways: Callable[..., Gateway]) -> None:
    assert gateways().post(PATH, {"input_type": "response", "texts": [BREAKS]}).status_code == 500
    assert asks(gateways(on_error="open"), "response", BREAKS)["action"] == "NONE"
    assert asks(gateways(mode="shadow"), "response", FORBIDDEN) == {"action": "NONE", "stream_holdback_chars": [0]}


@pytest.mark.parametrize(
    "body", [{}, {"input_type": "x"}, {"input_type": "request", "texts": [3]}, {"input_type": "response", "tool_calls": {}, "texts": 3}]
)
def test_a_malformed_request_is_a_400(gateway: Gateway, body: dict[str, Any]) -> None:
    assert gateway.post(PATH, body).status_code == 400
