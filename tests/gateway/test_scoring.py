"""A guard that breaks its contract is not believed."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import httpx2
import pytest
from tests.gateway.conftest import Gateway, Oracle, OracleSession, Scripted, answers, serving

from charter.errors import BackboneError, Unavailable
from charter.gateway.app import create_app
from charter.gateway.counters import Counters
from charter.gateway.scorer import Scorer, ScoringFailed
from charter.gateway.scoring import Conversation
from charter.gateway.settings import Settings
from charter.records import Turn


class Inventive(Oracle):
    """Releases text that nobody gave it."""

    def open(self, turns: tuple[Turn, ...]) -> Any:
        session = OracleSession(self, turns)
        session.push = lambda text: "made up"  # type: ignore[method-assign]
        return session


class Short(Oracle):
    """Takes no conversation of more than three characters."""

    def open(self, turns: tuple[Turn, ...]) -> OracleSession:
        if len(turns[0].content) > 3:
            raise BackboneError("the conversation is longer than the backbone's context of 3 tokens")
        return super().open(turns)


async def first_piece(guard: Oracle, counters: Counters) -> str:
    conversation = Conversation(Scorer(guard, Settings("http://127.0.0.1/v1"), counters), (Turn("user", "hi"),))
    await conversation.check_prompt()
    return await conversation.channel((0, ("delta", "content"))).push("one two")


def test_text_that_the_guard_was_not_given_never_leaves() -> None:
    counters = Counters()
    with pytest.raises(ScoringFailed, match="was not given"):
        anyio.run(first_piece, Inventive(), counters)
    assert counters.errors == 1
    assert anyio.run(first_piece, Oracle(), Counters()) == "one"


def test_a_conversation_that_is_too_long_is_a_400_that_says_so(upstream: Scripted) -> None:
    with serving(create_app(Short(), Settings(upstream.url))) as url, httpx2.Client(base_url=url, trust_env=False) as http:
        asked = len(upstream.bodies)
        response = http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "too long"}]})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "not_scored")
        assert "longer than the backbone's context" in response.json()["error"]["message"]
        assert len(upstream.bodies) == asked


def test_the_prompts_session_is_used_for_the_first_choices_content(gateway: Gateway) -> None:
    opened = len(gateway.guard.opened)
    gateway.ask(answers("one two"))
    assert len(gateway.guard.opened) == opened + 1
    assert gateway.guard.opened[-1] == (Turn("user", "hello"),)


async def beyond(guard: Oracle, counters: Counters) -> list[str]:
    """What becomes of three steps where one may run and one may wait."""
    scorer = Scorer(guard, Settings("http://127.0.0.1/v1", score_threads=1, max_waiting=1), counters)
    go, outcomes = threading.Event(), []

    async def step() -> None:
        try:
            outcomes.append(str(await scorer.call(go.wait, 60)))
        except ScoringFailed as error:
            outcomes.append(str(error))
        if len(outcomes) == 1:
            go.set()

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(step)
    return outcomes


def test_more_steps_than_may_wait_fail_at_once() -> None:
    counters = Counters()
    outcomes = anyio.run(beyond, Oracle(), counters)
    assert outcomes == ["2 scoring steps are asked for already; try again later", "True", "True"]
    assert counters.errors == 1


class Full(Oracle):
    def open(self, turns: tuple[Turn, ...]) -> OracleSession:
        raise Unavailable("there is no room")


def test_a_guard_that_has_no_room_is_no_mistake_of_the_clients(upstream: Scripted) -> None:
    with serving(create_app(Full(), Settings(upstream.url))) as url, httpx2.Client(base_url=url, trust_env=False) as http:
        response = http.post("/v1/guard/check", json={"input": "hello"})
        assert (response.status_code, "there is no room" in response.text) == (500, True)
