"""Sessions release what a stream through the gateway would, piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway
from tests.gateway.test_streaming import may_leave

PATH = "/v1/guard/sessions"


def opened(gateway: Gateway) -> str:
    return PATH + "/" + gateway.post(PATH, {"input": "hello"}).json()["id"]


@given(data=st.data())
@settings(max_examples=15)
def test_what_is_released_is_what_may_leave(data: st.DataObject, gateway: Gateway, texts: Any, chunked: Any) -> None:
    text = data.draw(st.sampled_from(["", " ", FORBIDDEN])).join(data.draw(st.lists(texts, min_size=1, max_size=2)))
    session, released = opened(gateway), ""
    for piece in chunked(data, text):
        answer = gateway.post(session, {"text": piece}).json()
        released += answer["released"]
        assert may_leave(text).startswith(released)
        assert answer["held_chars"] <= 64
    last = gateway.http.delete(session).json()
    assert (released + last["released"], last["flagged"], last["open"]) == (may_leave(text), FORBIDDEN in text, False)
    assert gateway.post(session, {"text": "more"}).status_code == gateway.http.delete(session).status_code == 404
    counters = gateway.counters()
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)


def test_a_restricted_prompt_opens_nothing(gateway: Gateway) -> None:
    response = gateway.post(PATH, {"input": FORBIDDEN})
    assert (response.status_code, response.json()["id"], response.json()["action"]) == (200, None, "block")


def test_their_number_and_their_idleness_are_bounded(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(max_sessions=2)
    first, _ = opened(gateway), opened(gateway)
    assert gateway.post(PATH, {"input": "hello"}).status_code == 429
    gateway.http.delete(first)
    assert gateway.post(PATH, {"input": "hello"}).status_code == 201
    idle = gateways(session_idle_s=0.0)
    assert idle.post(opened(idle), {"text": "a"}).status_code == 404


def test_a_piece_that_cannot_be_scored_follows_the_policy(gateways: Callable[..., Gateway]) -> None:
    closed, opens = gateways(), gateways(on_error="open")
    session = opened(closed)
    assert closed.post(session, {"text": f"{BREAKS} one"}).status_code == 500
    assert closed.post(session, {"text": "two"}).status_code == 404
    answer = opens.post(opened(opens), {"text": f"{BREAKS} one"}).json()
    assert (answer["released"], answer["scored"]) == (f"{BREAKS} one", False)


def test_a_piece_must_be_text(gateway: Gateway) -> None:
    assert gateway.post(opened(gateway), {"text": 3}).status_code == 400
