from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.errors import BudgetExceeded, TeacherError, UnusableAnswer
from charter.llm.cache import Cache, CachedChat
from charter.llm.chat import Reply, Request
from charter.llm.client import OpenAIChat
from charter.llm.pool import Budget
from charter.records import Turn

ASK = Request((Turn("user", "Say fine."),), max_tokens=5, temperature=0.3, seed=11, stop=("\n",))


def completion(text: str, **extra: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **extra}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def refusal(status: int, message: str, **headers: str) -> tuple[int, dict[str, str], Any]:
    return status, headers, {"error": {"message": message}}


def ask(url: str, request: Request = ASK, **options: Any) -> Reply:
    async def run() -> Reply:
        chat = OpenAIChat(url, "m", first_wait_s=0.01, **options)
        try:
            return await chat.complete(request)
        finally:
            await chat.aclose()

    return anyio.run(run)


def test_the_whole_request_is_sent_and_the_whole_reply_read(stub: Any) -> None:
    top = [{"token": "a", "logprob": -0.5, "bytes": None}, {"token": "b", "logprob": -1.5, "bytes": None}]
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": top}]}
    stub.script = lambda body, n: (200, {}, completion("fine", logprobs=logprobs))
    request = Request(ASK.messages, 5, 0.3, 11, ("\n",), top_logprobs=2)
    assert ask(stub.url, request) == Reply("fine", 7, 3, ({"a": -0.5, "b": -1.5},), "stop")
    assert stub.bodies == [
        {
            "model": "m", "messages": [{"role": "user", "content": "Say fine."}], "temperature": 0.3, "seed": 11,
            "max_tokens": 5, "stop": ["\n"], "logprobs": True, "top_logprobs": 2,
        }
    ]  # fmt: skip


@pytest.mark.parametrize("answer", [" 2. blue", "1. red\n2. blue"])
def test_a_prefill_is_the_last_message_and_never_part_of_the_reply(stub: Any, answer: str) -> None:
    stub.script = lambda body, n: (200, {}, completion(answer))
    reply = ask(stub.url, Request(ASK.messages, 5, 0.0, 0, prefill="1. red\n"))
    assert stub.bodies[0]["messages"][-1] == {"role": "assistant", "content": "1. red\n"}
    assert stub.bodies[0]["continue_final_message"] is True
    assert reply.text == answer.removeprefix("1. red\n")


def test_a_server_that_refuses_a_field_by_name_is_asked_without_it_once_and_for_all(stub: Any) -> None:
    def script(body: dict[str, Any], n: int) -> tuple[int, dict[str, str], Any]:
        for name in ("continue_final_message", "max_tokens"):
            if name in body:
                return refusal(
                    400, f"Unrecognized argument: {name}. Use max_completion_tokens" if name == "max_tokens" else f"Unrecognized: {name}"
                )
        return 200, {}, completion("fine")

    stub.script = script

    async def run() -> None:
        chat = OpenAIChat(stub.url, "m")
        request = Request(ASK.messages, 5, 0.0, 0, prefill="x")
        await chat.complete(request)
        calls = len(stub.bodies)
        await chat.complete(request)
        assert len(stub.bodies) == calls + 1
        assert stub.bodies[-1]["max_completion_tokens"] == 5
        await chat.aclose()

    anyio.run(run)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_faults_are_tried_again(stub: Any, status: int) -> None:
    stub.script = lambda body, n: refusal(status, "busy") if n < 2 else (200, {}, completion("at last"))
    assert ask(stub.url).text == "at last"
    assert len(stub.bodies) == 3


def test_retry_after_is_waited_for(stub: Any) -> None:
    stub.script = lambda body, n: refusal(429, "slow down", **{"retry-after": "0.4"}) if n == 0 else (200, {}, completion("fine"))
    start = time.monotonic()
    ask(stub.url)
    assert time.monotonic() - start >= 0.4


@pytest.mark.parametrize("header", ["Wed, 21 Oct 99999 07:28:00 GMT", "soon", "nan", "-5", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_says_nothing_or_lies_in_the_past_delays_nobody(stub: Any, header: str) -> None:
    stub.script = lambda body, n: refusal(429, "slow down", **{"retry-after": header}) if n == 0 else (200, {}, completion("fine"))
    assert ask(stub.url).text == "fine"


@pytest.mark.parametrize("status", [400, 422])
def test_calls_under_way_together_all_learn_that_a_field_is_refused(stub: Any, status: int) -> None:
    def script(body: dict[str, Any], n: int) -> tuple[int, dict[str, str], Any]:
        time.sleep(0.05)  # so that all were sent before the first answer came
        refused = "continue_final_message" in body
        return refusal(status, "continue_final_message: not permitted") if refused else (200, {}, completion("fine"))

    stub.script = script
    texts: list[str] = []

    async def run() -> None:
        chat = OpenAIChat(stub.url, "m")

        async def one() -> None:
            texts.append((await chat.complete(Request(ASK.messages, 5, 0.0, 0, prefill="x"))).text)

        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(one)
        await chat.aclose()

    anyio.run(run)
    assert texts == ["fine"] * 6


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "CHARTER_TEACHER_KEY"), (404, "--teacher-model"), (400, "--teacher-model"), (429, "later"), (500, "later")]
)
def test_a_lasting_fault_is_one_sentence_that_says_what_to_do(stub: Any, status: int, hint: str) -> None:
    stub.script = lambda body, n: refusal(status, "no\nsuch luck")
    with pytest.raises(TeacherError) as caught:
        ask(stub.url, attempts=2)
    assert len(stub.bodies) == (2 if status in (429, 500) else 1)
    assert all(part in str(caught.value) for part in (stub.url, str(status), "no such luck", hint))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        "<html>welcome</html>", "{}", "[]", '{"choices": []}', "", "null", '"text"', '{"choices": [{"message": {"content": [1]}}]}',
        '{"choices": [{"message": {"content": "cut', '{"choices": [{"message": null}]}', "[" * 100_000, '{"choices": {"0": 1}}',
        '{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"top_logprobs": [{"token": "a"}]}]}}]}',
        '{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}',
    ],
)  # fmt: skip
def test_an_answer_that_is_no_completion_is_a_teacher_error(stub: Any, answer: str) -> None:
    stub.script = lambda body, n: (200, {"content-type": "text/html" if "<" in answer else "application/json"}, answer)
    with pytest.raises(UnusableAnswer, match="no chat completion") as caught:
        ask(stub.url, attempts=2)
    assert len(stub.bodies) == 2
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_half_a_character_in_an_answer_does_no_harm(stub: Any) -> None:
    stub.script = lambda body, n: (200, {}, json.dumps(completion("a \ud83d b")))
    assert ask(stub.url).text.encode() == b"a ? b"


def test_what_is_sent_again_is_counted(stub: Any) -> None:
    stub.script = lambda body, n: refusal(503, "busy") if n % 3 else (200, {}, completion("fine"))

    async def run() -> int:
        chat = OpenAIChat(stub.url, "m", first_wait_s=0.001)
        for _ in range(3):
            await chat.complete(ASK)
        await chat.aclose()
        return chat.retries

    assert anyio.run(run) == len(stub.bodies) - 3 == 4


@pytest.mark.parametrize(
    ("status", "alone"), [(400, True), (422, True), (500, True), (401, False), (403, False), (404, False), (429, False)]
)
def test_only_what_may_lie_in_one_request_is_an_unusable_answer(stub: Any, status: int, alone: bool) -> None:
    stub.script = lambda body, n: refusal(status, "no")
    with pytest.raises(TeacherError) as caught:
        ask(stub.url, attempts=1)
    assert isinstance(caught.value, UnusableAnswer) is alone


def test_a_server_that_hangs_is_given_up(stub: Any) -> None:
    def script(body: dict[str, Any], n: int) -> tuple[int, dict[str, str], Any]:
        time.sleep(0.6)
        return 200, {}, completion("late")

    stub.script = script
    with pytest.raises(TeacherError, match="in time"):
        ask(stub.url, timeout_s=0.1, attempts=2)


def test_check_tells_in_one_call_that_nobody_is_there() -> None:
    async def run() -> None:
        await OpenAIChat("http://127.0.0.1:9/v1", "m").check()

    with pytest.raises(TeacherError, match=r"can't be reached.*is it running"):
        anyio.run(run)


def test_a_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(TeacherError, match="looks like http"):
        OpenAIChat("localhost:8000", "m")


@pytest.mark.parametrize(("lost", "cost"), [("<html>", 3), ("", 3), (503, 0), (429, 0)])
def test_what_a_server_may_have_worked_for_counts_though_nothing_came_of_it(stub: Any, lost: str | int, cost: int) -> None:
    ends = refusal(lost, "busy") if isinstance(lost, int) else (200, {}, lost)
    stub.script = lambda body, n: ends if n < 3 else (200, {}, completion("fine"))
    budget = Budget(price_in=1e6, price_out=1e6)
    assert ask(stub.url, budget=budget).text == "fine"
    assert budget.spent == cost * sum(ASK.worst) == cost * (len("Say fine.") // 2 + 5)


def test_a_call_that_times_out_counts_and_one_that_nobody_took_does_not(stub: Any) -> None:
    def slow(body: Any, n: int) -> Any:
        time.sleep(1.5)
        return 200, {}, completion("late")

    stub.script = slow
    for url, times in ((stub.url, 2), ("http://127.0.0.1:9/v1", 0)):
        budget = Budget(price_in=1e6, price_out=1e6)
        with pytest.raises(TeacherError):
            ask(url, budget=budget, attempts=2, timeout_s=0.5)  # enough to be connected on a busy machine
        assert budget.spent == times * sum(ASK.worst)


@pytest.mark.parametrize("cap", [1, 2.5, 5])
def test_a_server_that_gives_garbage_can_not_pass_the_cap(stub: Any, tmp_path: Path, cap: float) -> None:
    stub.script = lambda body, n: (200, {}, "garbage")
    worst = sum(ASK.worst)
    budget = Budget(cap * worst, 1e6, 1e6)

    async def run() -> None:
        chat = OpenAIChat(stub.url, "m", first_wait_s=0.001, attempts=4, budget=budget)
        with Cache(tmp_path / "c.sqlite") as cache:
            cached = CachedChat(chat, cache, budget)
            for seed in range(9):
                with contextlib.suppress(UnusableAnswer):
                    await cached.complete(replace(ASK, seed=seed))

    with pytest.raises(BudgetExceeded, match="--max-cost"):
        anyio.run(run)
    assert len(stub.bodies) == int(cap)
    assert (budget.spent, budget.reserved) == (int(cap) * worst, 0.0)
