from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import BudgetExceeded, DataError, TeacherError, UnusableAnswer
from charter.llm.cache import Cache, CachedChat
from charter.llm.chat import Reply, Request
from charter.llm.pool import Budget
from charter.records import Turn

ASK = Request((Turn("user", "Hi"),), 5, 0.0, 0)


class CountingChat:
    """Answers with the number of the call, after a moment."""

    model = "counting"

    def __init__(self, failures: int = 0) -> None:
        self.calls = 0
        self.failures = failures

    async def complete(self, request: Request) -> Reply:
        self.calls += 1
        number = self.calls
        await anyio.sleep(0.01)
        if number <= self.failures:
            raise TeacherError("not now")
        return Reply(f"answer {number} \u2028 ü", 3, 2, ({"a": -0.25},))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "deep" / "cache.sqlite") as opened:
        yield opened


def test_the_same_request_is_asked_once_even_by_the_next_run(tmp_path: Path) -> None:
    path, chat = tmp_path / "c.sqlite", CountingChat()
    replies = []
    for _ in range(2):
        with Cache(path) as cache:
            cached = CachedChat(chat, cache)
            replies += [anyio.run(cached.complete, ASK) for _ in range(2)]
    assert chat.calls == 1
    assert replies == [replies[0]] * 4
    assert (cached.usage.cached, cached.usage.made) == (2, 0)


def test_tasks_with_the_same_question_wait_for_one_answer(cache: Cache) -> None:
    chat = CountingChat()
    cached = CachedChat(chat, cache)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(cached.complete, replace(ASK, seed=number % 3))

    anyio.run(run)
    assert chat.calls == len(cache) == 3
    assert (cached.usage.cached, cached.usage.made, cached.usage.tokens_in, cached.usage.tokens_out) == (9, 3, 9, 6)


def test_a_failure_is_not_cached_and_releases_its_reservation(cache: Cache) -> None:
    budget = Budget(1.0, price_out=1e5)
    cached = CachedChat(CountingChat(failures=1), cache, budget)
    with pytest.raises(TeacherError):
        anyio.run(cached.complete, ASK)
    assert (len(cache), budget.reserved) == (0, 0.0)
    assert anyio.run(cached.complete, ASK).text.startswith("answer 2")
    assert budget.spent == pytest.approx(0.2)


class HopelessChat(CountingChat):
    """Gives nothing usable, but for every `good`th call."""

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good

    async def complete(self, request: Request) -> Reply:
        self.calls += 1
        if self.calls % self.good:
            raise UnusableAnswer("a page")
        return Reply("fine", 1, 1)


@pytest.mark.parametrize(("good", "stops"), [(1_000, True), (3, True), (2, False), (1, False)])
def test_a_run_stops_when_most_answers_are_unusable_and_counts_them_otherwise(cache: Cache, good: int, stops: bool) -> None:
    cached = CachedChat(HopelessChat(good), cache)

    async def run() -> None:
        for number in range(40):
            with contextlib.suppress(UnusableAnswer):
                await cached.complete(replace(ASK, seed=number))

    if stops:
        with pytest.raises(TeacherError, match="21 of the last"):
            anyio.run(run)
    else:
        anyio.run(run)
        assert cached.usage.made + cached.usage.failed == 40
        assert len(cache) == cached.usage.made


@given(limit=st.integers(1, 5), calls=st.integers(1, 12))
def test_no_more_calls_than_the_limit_are_in_flight(limit: int, calls: int) -> None:
    running, most = 0, 0

    class Watched(CountingChat):
        async def complete(self, request: Request) -> Reply:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await anyio.sleep(0)
            running -= 1
            return Reply("x", 1, 1)

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder, Cache(Path(folder) / "c.sqlite") as cache:
            cached = CachedChat(Watched(), cache, limit=limit)
            async with anyio.create_task_group() as group:
                for number in range(calls):
                    group.start_soon(cached.complete, replace(ASK, seed=number))

    anyio.run(run)
    assert most == min(limit, calls)


class SilentChat(CountingChat):
    """Tells no usage."""

    async def complete(self, request: Request) -> Reply:
        return replace(await super().complete(request), prompt_tokens=0, completion_tokens=0)


def test_the_cap_holds_where_the_server_tells_no_usage(cache: Cache) -> None:
    chat = SilentChat()
    cached = CachedChat(chat, cache, Budget(3.5 * ASK.max_tokens, price_out=1e6))

    async def run() -> None:
        for number in range(10):
            await cached.complete(replace(ASK, seed=number))

    with pytest.raises(BudgetExceeded):
        anyio.run(run)
    assert chat.calls == 3


def test_a_spent_budget_still_gives_what_was_paid_for(cache: Cache) -> None:
    anyio.run(CachedChat(CountingChat(), cache).complete, ASK)
    poor = CachedChat(CountingChat(), cache, Budget(0.0, price_in=1.0, price_out=1.0))
    assert anyio.run(poor.complete, ASK).text.startswith("answer 1")
    with pytest.raises(BudgetExceeded):
        anyio.run(poor.complete, replace(ASK, seed=1))


@given(
    st.sampled_from(["messages", "max_tokens", "temperature", "seed", "stop", "top_logprobs", "prefill"]), st.text(min_size=1, max_size=5)
)
def test_every_field_and_the_model_count_for_the_key(field: str, text: str) -> None:
    values = {"messages": (Turn("user", "Hi" + text),), "max_tokens": 6, "temperature": 0.5, "seed": 1, "stop": (text,), "top_logprobs": 1}
    assert replace(ASK, **{field: values.get(field, text)}).key("m") != ASK.key("m") != ASK.key("m" + text)


def test_the_key_is_the_same_in_every_process() -> None:
    code = (
        "from charter.llm.chat import Request; from charter.records import Turn; print(Request((Turn('user', 'Hi'),), 5, 0.0, 0).key('m'))"
    )
    keys = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)}
    assert keys == {ASK.key("m")}


WRITER = """
import sys
from pathlib import Path
from charter.llm.cache import Cache
from charter.llm.chat import Reply
cache = Cache(Path(sys.argv[1]))
for number in range(100_000):
    cache.put(f"key {number}", "{}", Reply("text " * 50, 1, 1))
    print(number, flush=True)
"""


def test_nothing_that_was_put_is_lost_to_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(200):
        last = process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    done = int((process.stdout.read().split() or [last])[-1])
    process.stdout.close()
    process.wait()
    with Cache(path) as cache:
        assert all(cache.get(f"key {number}") == Reply("text " * 50, 1, 1) for number in range(done + 1))


LIMITED = """
import resource, signal, sys
from pathlib import Path
from charter.errors import DataError
from charter.llm.cache import Cache
from charter.llm.chat import Reply
cache = Cache(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(10_000):
        cache.put(str(number), "{}", Reply("text " * 500, 1, 1))
except DataError as error:
    print(number, error)
"""


def test_a_full_disk_is_one_sentence_and_what_was_kept_stays(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    run = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    number, _, sentence = run.stdout.partition(" ")
    assert "is the disk full" in sentence
    assert sentence.count("\n") == 1
    with Cache(path) as cache:
        assert len(cache) == int(number) > 0


def test_a_file_that_is_no_database_is_told_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match=r"damaged.*delete"):
        Cache(path)


def test_a_reply_that_is_no_json_is_told_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with Cache(path) as cache:
        cache.put(ASK.key("counting"), "{}", Reply("x", 1, 1))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE replies SET reply = '{'")
    database.close()
    with Cache(path) as cache, pytest.raises(DataError, match="damaged"):
        cache.get(ASK.key("counting"))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="CHARTER_CACHE"):
        Cache(tmp_path / "file" / "c.sqlite")
