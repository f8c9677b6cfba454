"""Replies that nobody ends leave a row all the same: sessions that are left open, LiteLLM's calls, whose end is never told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.conftest import FORBIDDEN, Scripted
from tests.gateway.test_observed import told, watching
from waiting import until

from charter.gateway.kept import Kept

PROMPT = ("prompt", 0, False, "allow", None, None, False)
PASSED = ("reply", 0, False, "allow", None, None, False)
FLAGGED = ("reply", 0, True, "block", "words", 1, False)
GUARDRAIL = "/beta/litellm_basic_guardrail_api"


def calls(post: Callable[..., Any], identity: str, texts: list[str]) -> Any:
    asked = {"litellm_call_id": identity, "structured_messages": [{"role": "user", "content": "hello"}]}
    first = post(GUARDRAIL, {**asked, "input_type": "request", "texts": ["hello"]})
    for text in texts:
        post(GUARDRAIL, {**asked, "input_type": "response", "texts": [text]})
    return first


def test_a_reply_that_nobody_ends_is_logged_when_it_is_let_go(upstream: Scripted, tmp_path: Path) -> None:
    with watching(upstream, tmp_path, session_idle_s=0.4) as gateway:
        opened = gateway.post("/v1/guard/sessions", {"input": "hello"})
        gateway.post(f"/v1/guard/sessions/{opened.json()['id']}", {"text": "fine so "})
        asked = calls(gateway.post, "one", ["fine ", "fine so far"])
        until(lambda: gateway.log.counts.found == 4)  # nobody asks for anything meanwhile
        assert told(gateway.rows(opened)) == [PROMPT, PASSED]
        rows = gateway.rows(asked)
        assert told(rows) == [PROMPT, PASSED]
        assert {row["surface"] for row in rows} == {GUARDRAIL}


def test_one_that_is_pushed_out_by_another_is_found_under_its_own_request(upstream: Scripted, tmp_path: Path) -> None:
    with watching(upstream, tmp_path, max_sessions=1) as gateway:
        first = calls(gateway.post, "one", ["fine"])
        second = calls(gateway.post, "two", [f"one {FORBIDDEN}"])
        until(lambda: gateway.log.counts.found == 4)
        assert told(gateway.rows(first)) == [PROMPT, PASSED]
        assert told(gateway.rows(second)) == [PROMPT]  # its reply was flagged in a request of its own
        assert sorted(told(gateway.rows())) == sorted([PROMPT, PROMPT, PASSED, FLAGGED])


def test_what_is_open_when_the_gateway_stops_is_logged(upstream: Scripted, tmp_path: Path) -> None:
    with watching(upstream, tmp_path) as gateway:
        opened = gateway.post("/v1/guard/sessions", {"input": "hello"})
        gateway.post(f"/v1/guard/sessions/{opened.json()['id']}", {"text": "fine so "})
        calls(gateway.post, "one", ["fine"])
        time.sleep(0.1)
        assert gateway.log.counts.found == 2
    assert gateway.log.counts.found == gateway.log.counts.written == 4


@given(
    st.integers(1, 4), st.lists(st.tuples(st.sampled_from(["put", "get", "pop", "wait", "expire"]), st.sampled_from("abcdef")), max_size=60)
)
def test_each_thing_is_let_go_or_popped_and_never_both(most: int, steps: list[tuple[str, str]]) -> None:
    now, put = [0.0], 0
    left: list[int] = []
    popped: list[int] = []
    kept = Kept[int](most, 1.0, lambda: now[0], left.append)
    for step, key in steps:
        if step == "put":
            kept.put(key, put)
            put += 1
        elif step == "pop":
            thing = kept.pop(key)
            popped += [] if thing is None else [thing]
        elif step == "get":
            kept.get(key)
        elif step == "expire":
            kept.expire()
        else:
            now[0] += 0.6
        assert len(kept) <= most
    kept.clear()
    assert sorted(left + popped) == list(range(put))
