"""A scorer in a process of its own: it may die at any moment, and nothing unscored leaves; the next request works."""

from __future__ import annotations

import copy
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import apart
import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.conftest import Gateway, Scripted, answers, content, events, finishes, says, serving
from waiting import until

from charter.errors import BackboneError, GuardError, Unavailable
from charter.gateway.app import create_app
from charter.gateway.counters import Counters
from charter.gateway.reload import Reloader
from charter.gateway.scorer import Scorer
from charter.gateway.settings import Settings
from charter.guard.remote import Link, RemoteGuard
from charter.guard.supervisor import ScorerProcess
from charter.guard.tokens import telling
from charter.guard.wire import Wire
from charter.records import Turn

PROMPT = (Turn("user", "hello"),)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("apart") / "guard"
    path.write_text("first zyzzyva")
    return path


@pytest.fixture(scope="module")
def process(file: Path) -> Iterator[ScorerProcess]:
    running = ScorerProcess([sys.executable, apart.__file__], str(file))
    yield running
    running.stop()


@pytest.fixture
def guard(process: ScorerProcess) -> RemoteGuard:
    return RemoteGuard(Link(process.path), process)


def test_a_session_over_there_is_what_it_would_be_here(guard: RemoteGuard) -> None:
    assert (guard.name, guard.hash, guard.clauses) == ("apart", "first", ("words",))
    assert telling(guard) is None
    session = guard.open(PROMPT)
    assert session.push("naïve 😀 \ud83d words and ") == "naïve 😀 \ud83d words and"
    twin = copy.deepcopy(session)
    assert (twin.flush(), session.push("zyzzyva more ")) == (" ", "")
    assert (session.reply_verdict.flagged, session.reply_verdict.clause, twin.reply_verdict.flagged) == (True, "words", False)
    assert guard.clause_scores(session) == {"words": 0.9}
    with pytest.raises(BackboneError, match="longer than the backbone's context"):
        guard.open((Turn("user", "endless"),))


def test_what_is_let_go_here_is_let_go_there(guard: RemoteGuard) -> None:
    def held() -> int:
        guard.open(PROMPT)
        return guard.load().state_bytes

    kept = [guard.open(PROMPT) for _ in range(20)]
    assert held() >= 21
    kept.clear()
    until(lambda: held() < 10)


@given(data=st.binary(max_size=200))
def test_bytes_of_a_stranger_are_no_message(data: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(data)
        there.close()
        wire = Wire(here)
        while (found := wire.receive()) is not None:
            assert isinstance(found, dict)


def test_a_stranger_who_hangs_up_in_the_middle_disturbs_nobody(guard: RemoteGuard, process: ScorerProcess) -> None:
    session = guard.open(PROMPT)
    for data in (
        b"",
        b"\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02{}",
        b'\x00\x00\x00\x0d{"do":"open"}',
        b"\x00\x00\x00\x10garbage",
    ):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(process.path)
            stranger.sendall(data)
    assert session.push("one two") == "one"


@pytest.mark.parametrize("on_error", ["closed", "open"])
def test_a_scorer_that_is_killed_in_a_stream_leaks_nothing_and_the_next_request_works(
    on_error: str, guard: RemoteGuard, process: ScorerProcess, upstream: Scripted
) -> None:
    restarts, text = process.restarts, "one two three molasses four five six"
    app = create_app(guard, Settings(upstream.url, on_error=on_error))  # type: ignore[arg-type]
    with serving(app) as url, httpx2.Client(base_url=url, trust_env=False, timeout=120) as http:
        gateway = Gateway(url, guard, upstream, http, None)  # type: ignore[arg-type]
        body = {
            "model": upstream.plays(says(*(f"{w} " for w in text.split()))),
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
        }
        got = b""
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            for block in response.iter_raw():
                got += block
                if b"two" in got and process.restarts == restarts:
                    os.kill(process.pid, signal.SIGKILL)
                    until(lambda: process.restarts > restarts)
        found = events(got)
        if on_error == "closed":
            assert text.startswith(content(found))
            assert "molasses" not in content(found)
            assert finishes(found) == ["content_filter"]
        else:
            assert content(found).strip() == text
        counters = gateway.counters()
        assert counters["errors"] >= 1
        assert (counters["released_unscored_chars"] > 0) == (on_error == "open")
        assert counters["released_after_verdict_chars"] == 0
        assert content(gateway.stream(says("one ", "zyzzyva ", "two"))) == "one"
        assert content(gateway.stream(says("one ", "two"))) == "one two"
        assert f"charter_scorer_restarts_total {float(process.restarts)}" in http.get("/metrics").text
        assert gateway.ask(answers("x"), "endless").status_code == (400 if on_error == "closed" else 200)


def test_a_session_of_a_dead_scorer_stays_dead(guard: RemoteGuard, process: ScorerProcess) -> None:
    restarts, session = process.restarts, guard.open(PROMPT)
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.restarts > restarts)
    for _ in range(2):
        with pytest.raises(Unavailable, match="has ended"):
            session.push("word ")
    assert guard.open(PROMPT).push("one two") == "one"
    with pytest.raises(Unavailable):
        session.flush()


def test_a_guard_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "guard").write_text("damaged x")
    with pytest.raises(GuardError, match="is damaged"):
        ScorerProcess([sys.executable, apart.__file__], str(tmp_path / "guard"))
    with pytest.raises(GuardError, match="ended before its guard was loaded"):
        ScorerProcess([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_reload_leaves_open_sessions_where_they_are_and_a_damaged_guard_outside(
    guard: RemoteGuard, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scorer = Scorer(guard, Settings("http://127.0.0.1/v1"), Counters())
    reloader = Reloader(scorer, guard.reloaded)
    session = scorer.guard.open(PROMPT)
    try:
        file.write_text("second harmless")
        assert anyio.run(reloader.reload)
        assert (guard.hash, scorer.guard.hash) == ("first", "second")
        assert (session.push("harmless zyzzyva"), session.reply_verdict.flagged) == ("harmless", False)
        assert (session.flush(), session.reply_verdict.flagged) == ("", True)
        assert scorer.guard.open(PROMPT).push("one harmless two") == "one"
        assert guard.open(PROMPT).push("one harmless two") == "one harmless"  # another text of a reply that began before
        file.write_text("damaged x")
        assert not anyio.run(reloader.reload)
        assert scorer.guard.open(PROMPT).push("one harmless two") == "one"
        assert "is damaged" in caplog.text
    finally:
        file.write_text("first zyzzyva")


SERVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from apart import Guard
from charter.gateway.serve import run
from charter.gateway.settings import Settings

load = lambda: Guard(Path(sys.argv[3]))
run(load(), Settings(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), reload=load)
"""


def test_a_guard_is_swapped_by_a_signal_while_a_stream_is_open(upstream: Scripted, tmp_path: Path) -> None:
    file = tmp_path / "guard"
    file.write_text("first nothing-is")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, "-c", SERVE, upstream.url, str(port), str(file), str(Path(apart.__file__).parent)]
    gateway = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=120) as http:
            until(lambda: _serves(http, gateway, "first"))
            script = says(*(f"{w} " for w in ["one", "two", "three"] + ["more"] * 30 + ["zyzzyva", "end"]))
            script.pause_s = 0.1
            messages = [{"role": "user", "content": "x"}]
            swapped, got = False, b""
            body = {"model": upstream.plays(script), "messages": messages, "stream": True}
            with http.stream("POST", "/v1/chat/completions", json=body) as response:
                for block in response.iter_raw():
                    got += block
                    if b"two" in got and not swapped:
                        swapped = True
                        file.write_text("second zyzzyva")
                        gateway.send_signal(signal.SIGHUP)
                        until(lambda: _serves(http, gateway, "second"))
            assert content(events(got)).endswith("zyzzyva end ")
            script.pause_s = 0.0
            assert content(events(http.post("/v1/chat/completions", json=body).content)).endswith("more")
            file.write_text("damaged x")
            gateway.send_signal(signal.SIGHUP)
            assert gateway.stderr is not None
            line = next(line for line in gateway.stderr if "was not swapped" in line)
            assert "is damaged" in line
            assert _serves(http, gateway, "second")
    finally:
        gateway.terminate()
        gateway.communicate(timeout=60)


def _serves(http: httpx2.Client, gateway: subprocess.Popen[str], digest: str) -> bool:
    assert gateway.poll() is None
    try:
        return bool(http.get("/healthz").json()["guard"]["hash"] == digest)
    except httpx2.ConnectError:
        return False
