"""Several real processes on one port: one may be killed, the others go on, and the figures are those of all."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crowd
import httpx2
import pytest
from tests.gateway.conftest import Script, Scripted, answers, content, events, finishes, says

from charter.errors import CharterError
from charter.gateway.keys import Key, hashed, new_key, write_keys
from charter.gateway.listening import bound, reserve

N = 2


@dataclass
class Crowd:
    """The supervisor's process and how it is asked. Each question is a connection of its own: any worker may get it."""

    process: subprocess.Popen[str]
    url: str
    upstream: Scripted
    file: Path
    log: list[str]
    http: httpx2.Client

    def get(self, path: str) -> httpx2.Response:
        return self.http.get(path)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx2.Response:
        return self.http.post(path, json=body, headers=headers)

    def chat(self, script: Script, **more: Any) -> dict[str, Any]:
        return {"model": self.upstream.plays(script), "messages": [{"role": "user", "content": "x"}], **more}

    def health(self) -> dict[str, Any]:
        return dict(self.get("/healthz").json())

    def pids(self, asked: int = 25) -> dict[int, int]:
        """Worker to process id, of those that answer so many questions."""
        found = [self.health()["worker"] for _ in range(asked)]
        return {each["number"]: each["pid"] for each in found}

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for it, a minute at most."""
        end = time.monotonic() + 60
        while not true():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.05)

    def requests(self) -> int:
        """Requests that all workers have counted, once that stands still: a sibling's figures are up to half a second old."""
        found, last = [-1], time.monotonic()
        while time.monotonic() < last + 1.5:
            if (now := self.health()["counters"]["requests"]) != found[-1]:
                found, last = [now], time.monotonic()
            time.sleep(0.1)
        return int(found[-1])

    def answers(self) -> bool:
        try:
            return self.get("/healthz").is_success
        except httpx2.TransportError:
            return False

    def hashes(self) -> set[str]:
        return {self.health()["guard"]["hash"] for _ in range(12)}


@contextmanager
def running(upstream: Scripted, folder: Path, *more: str) -> Iterator[Crowd]:
    file = folder / "guard"
    file.write_text("first zyzzyva")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [sys.executable, crowd.__file__, upstream.url, str(port), str(file), str(folder), str(N), *more]
    process, log = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True), list[str]()
    assert process.stderr is not None
    lines = process.stderr
    reader = threading.Thread(target=lambda: log.extend(lines))
    reader.start()
    url, anew = f"http://127.0.0.1:{port}", httpx2.Limits(max_keepalive_connections=0)
    client = httpx2.Client(base_url=url, trust_env=False, timeout=60, limits=anew, verify=False)
    found = Crowd(process, url, upstream, file, log, client)
    try:
        found.until(found.answers)
        found.until(lambda: len(found.pids()) == N)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        reader.join()
        client.close()
        assert "Traceback" not in "".join(log)


@pytest.fixture(scope="module")
def many(upstream: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    folder = tmp_path_factory.mktemp("crowd")
    with running(upstream, folder) as found:
        yield found
    rows = sqlite3.connect(folder / "log.db")
    assert rows.execute("SELECT COUNT(*) FROM charter_verdicts").fetchone()[0] > 20
    rows.close()
    assert [file for file in (folder / "log.db.spool").iterdir() if file.suffix == ".jsonl"] == []


def test_all_answer_and_the_figures_are_those_of_all(many: Crowd) -> None:
    before = many.health()["counters"]
    for _ in range(20):
        assert many.post("/v1/chat/completions", many.chat(answers("one zyzzyva two"))).json()["choices"][0]["message"]["content"] == "one"

    def told() -> set[tuple[int, ...]]:
        names = ("requests", "flagged_replies", "blocked_replies")
        return {tuple(each[name] - before[name] for name in names) for each in (many.health()["counters"] for _ in range(12))}

    many.until(lambda: told() == {(20, 20, 20)})

    def metrics() -> list[str]:
        return [many.get("/metrics").text for _ in range(6)]

    many.until(lambda: len({re.search(r"^charter_audit_found_total (\S+)", text, re.M)[1] for text in metrics()}) == 1)  # type: ignore[index]
    verdicts = r'^charter_verdicts_total\{action="block",clause="words",stage="reply",verdict="flagged"\} 20.0$'
    many.until(lambda: all(re.search(verdicts, text, re.M) for text in metrics()))
    for text in metrics():
        assert f"charter_workers {float(N)}" in text
        assert "charter_released_unscored_chars_total 0.0" in text
        assert text.count("charter_guard_info{") == 1


def test_a_session_and_a_call_of_litellms_find_their_worker(many: Crowd) -> None:
    opened = [many.post("/v1/guard/sessions", {"input": "hello"}).json()["id"] for _ in range(40)]
    assert {name.split("-")[1] for name in opened} == {"0", "1"}
    for name in opened[:8]:
        released = [
            many.post(f"/v1/guard/sessions/{name}", {"text": piece}).json()["released"] for piece in ("one two", " thr", "ee zyzzyva")
        ]
        assert released == ["one", " two", " three"]
        closed = many.http.delete(f"/v1/guard/sessions/{name}")
        assert (closed.json()["flagged"], closed.json()["open"]) == (True, False)
        assert many.post(f"/v1/guard/sessions/{name}", {"text": "more"}).status_code == 404
    for odd in ("gs-7-x", "gs--1-x", "gs", "gs-²-x"):
        assert many.post(f"/v1/guard/sessions/{odd}", {"text": "more"}).status_code == 404
    path, before = "/beta/litellm_basic_guardrail_api", many.requests()
    for call in ("a", "b", "c", "d"):
        for size in range(1, 5):
            words = "one two three zyzzyva".split()[:size]
            body = {"input_type": "response", "texts": [" ".join(words)], "litellm_call_id": call}
            assert many.post(path, body).json()["action"] == ("BLOCKED" if size == 4 else "NONE")
    many.until(lambda: many.requests() == before + 16)


def test_one_that_is_killed_in_anothers_stream_is_started_again_and_nothing_leaks(many: Crowd) -> None:
    before, script = many.pids(), says(*(f"{w} " for w in ["one", "two", "three"] + ["more"] * 40 + ["zyzzyva", "end"]))
    counted = many.requests()
    script.pause_s = 0.05
    got, results = [b"" for _ in range(6)], [""] * 6

    def read(number: int) -> None:
        try:
            with many.http.stream("POST", "/v1/chat/completions", json=many.chat(script, stream=True)) as response:
                for block in response.iter_raw():
                    got[number] += block
            results[number] = "whole"
        except httpx2.TransportError:
            results[number] = "cut"

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    many.until(lambda: all(b"three" in text for text in got))
    many.until(lambda: {many.health()["counters"]["requests"] for _ in range(12)} == {counted + 6})  # so each has told what it counted
    os.kill(before[0], signal.SIGKILL)
    many.until(many.answers)  # a connection that the dying one had just taken is reset, the next one is not
    for thread in threads:
        thread.join()
    for text, result in zip(got, results, strict=True):
        said = content(events(text[: text.rfind(b"\n\n") + 2]))
        assert "zyzzyva" not in said
        assert "end" not in said
        if result == "whole":
            assert (said.endswith("more"), finishes(events(text))) == (True, ["content_filter"])
    many.until(lambda: len(many.pids()) == N)
    after = many.pids()
    assert (after[0] != before[0], after[1]) == (True, before[1])
    counters = many.health()["counters"]
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)
    many.until(lambda: many.requests() == counted + 6)  # those of the dead one are not forgotten
    many.until(lambda: "charter_worker_restarts_total 1.0" in many.get("/metrics").text)


def test_a_signal_reloads_all_and_a_damaged_guard_none(many: Crowd) -> None:
    try:
        many.file.write_text("second harmless")
        many.process.send_signal(signal.SIGHUP)
        many.until(lambda: many.hashes() == {"second"})
        many.file.write_text("damaged x")
        many.process.send_signal(signal.SIGHUP)
        many.until(lambda: sum("was not swapped" in line for line in many.log) == N)
        assert many.hashes() == {"second"}
    finally:
        many.file.write_text("first zyzzyva")
        many.process.send_signal(signal.SIGHUP)
        many.until(lambda: many.hashes() == {"first"})


def test_keys_are_asked_for_once_and_the_secret_of_the_workers_can_t_be_guessed(upstream: Scripted, tmp_path: Path) -> None:
    secret = new_key()
    write_keys(tmp_path / "keys.json", [Key(name="app", sha256=hashed(secret))])
    with running(upstream, tmp_path, f"keys={tmp_path / 'keys.json'}", "watch") as found:
        asked = {"authorization": f"Bearer {secret}"}
        names = [found.post("/v1/guard/sessions", {"input": "hello"}, **asked).json()["id"] for _ in range(6)]
        for name in names:
            answer = found.post(f"/v1/guard/sessions/{name}", {"text": "one two"}, **asked)
            assert (answer.status_code, answer.json()["released"]) == (200, "one")
            assert found.post(f"/v1/guard/sessions/{name}", {"text": "x"}).status_code == 401
            assert found.post(f"/v1/guard/sessions/{name}", {"text": "x"}, **{"x-charter-relay": "guess"}).status_code == 401
        found.file.with_suffix(".new").write_text("second harmless")
        found.file.with_suffix(".new").rename(found.file)
        found.until(lambda: found.hashes() == {"second"})
    rows = sqlite3.connect(tmp_path / "log.db")
    assert rows.execute("SELECT DISTINCT key FROM charter_verdicts").fetchall() == [("app",)]
    rows.close()


def test_a_guard_that_can_t_be_loaded_is_one_sentence_before_anything_is_served(upstream: Scripted, tmp_path: Path) -> None:
    (tmp_path / "guard").write_text("damaged x")
    arguments = [sys.executable, crowd.__file__, upstream.url, "0", str(tmp_path / "guard"), str(tmp_path), str(N)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (1, f"charter.errors.CharterError: {tmp_path / 'guard'}: is damaged")


def test_a_port_that_is_taken_is_not_shared_with_a_stranger() -> None:
    with bound("127.0.0.1", 0, shared=True) as taken, pytest.raises(CharterError, match="choose another"):
        reserve("127.0.0.1", taken.getsockname()[1])
