"""`charter review` as a person uses it, at the end of a pipe and at a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from charter.constitution import load
from charter.records import Example, Turn, read_examples, write_examples
from charter.synthesis.crossfit import Second
from charter.synthesis.items import digest, from_pool, key, written_for
from charter.synthesis.review import doubts, write_doubts

CHARTER = str(Path(sys.executable).with_name("charter"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two items of clauses across the line and one of a pool, with their rows."""
    constitution = load("bank-assistant")
    restricted, permitted = constitution["tax-advice"], constitution["tax-information"]
    items = [
        written_for(restricted, (Turn("user", "How much tax will I owe?\x1b[2J"),), "m"),
        written_for(permitted, (Turn("user", "What is a tax year?"),), "m"),
        from_pool("chat", (Turn("user", "Hi."),), None, "m"),
    ]
    write_doubts(tmp_path, doubts(items, {key(item): Second(n / 10, restricted.id) for n, item in enumerate(items)}))
    (tmp_path / "constitution.yaml").write_text(constitution.source)
    rows = [
        Example(digest(i.turns), i.turns, i.prompt_restricted, None, i.clause, i.side, i.slice, "plain", i.parent, "m", 0, "train", "")
        for i in items
    ]
    write_examples(tmp_path / "examples.parquet", rows)
    return tmp_path


def review(data: Path, *options: str, keys: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([CHARTER, "review", str(data), *options], input=keys, capture_output=True, text=True, timeout=60)


def made(data: Path) -> list[str]:
    path = data / "reviewed.jsonl"
    return [json.loads(line)["choice"] for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_line_each_decides_and_the_end_of_the_input_quits(data: Path) -> None:
    said = review(data, keys="Flip\nx\n\nd\n")
    assert said.returncode == 0, said.stderr
    assert "1 of 3" in said.stdout
    assert "3 of 3" in said.stdout
    assert said.stdout.count("there is no such key") == 2
    assert "across the line, permitted: " in said.stdout
    assert "\x1b" not in said.stdout
    assert "2 of 3 decided; 2 rows" in said.stdout
    assert made(data) == ["flip", "drop"]
    assert [(row.clause, row.prompt_restricted) for row in read_examples(data)] == [("tax-information", False), ("", False)]


def test_a_pool_item_is_not_offered_a_flip_and_undo_takes_back(data: Path) -> None:
    said = review(data, keys="u\nk\nu\ns\ns\nf\nk\n")
    assert "nothing to undo" in said.stdout
    last = said.stdout.split("3 of 3")[1]
    assert "[f]lip" not in last
    assert "no clause across the line" in last
    assert made(data) == ["keep", "undo", "keep"]
    assert "1 of 3 decided; 0 rows" in said.stdout


def test_json_lists_and_asks_nothing(data: Path) -> None:
    review(data, keys="k\nq\n")
    before = sorted((path.name, path.read_bytes()) for path in data.iterdir())
    listed = json.loads(review(data, "--json").stdout)
    assert [(row["probability"], row["decision"]) for row in listed] == [(0.0, "keep"), (0.1, None), (0.2, None)]
    assert sorted((path.name, path.read_bytes()) for path in data.iterdir()) == before


def test_a_walk_goes_on_where_the_last_one_ended(data: Path) -> None:
    review(data, keys="k\nq\n")
    said = review(data, keys="q\n")
    assert "2 of 3" in said.stdout
    assert "1 of 3:" not in said.stdout


@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_what_was_decided_is_there_however_it_ends(data: Path, how: str) -> None:
    process = subprocess.Popen([CHARTER, "review", str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"d\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not made(data) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
    process.communicate(timeout=30)
    assert made(data) == ["drop"]
    assert sum(1 for _ in read_examples(data)) == (2 if how == "interrupt" else 3)
    assert process.returncode == (0 if how == "interrupt" else -signal.SIGKILL)
    review(data, keys="q\n")
    assert sum(1 for _ in read_examples(data)) == 2


def test_at_a_terminal_one_key_is_enough(data: Path) -> None:
    here, there = pty.openpty()
    process = subprocess.Popen([CHARTER, "review", str(data)], stdin=there, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(there)
    assert process.stdout is not None
    assert process.stderr is not None
    out = b""
    for prompts, press in enumerate((b"k", b"d", b"q", b""), 1):
        while out.count(b"[q]uit: ") < prompts and (more := os.read(process.stdout.fileno(), 65_536)):
            out += more
        while press and not select.select([process.stdout], [], [], 0.3)[0]:
            os.write(here, press)  # the terminal is flushed as it is made ready for a key: what came too early is lost
    assert process.wait(30) == 0, process.stderr.read()
    process.stdout.close(), process.stderr.close(), os.close(here)
    assert made(data) == ["keep", "drop"]
    assert b"2 of 3 decided; 1 rows" in out


def test_a_mistake_gets_a_sentence_and_exit_code_2(data: Path) -> None:
    (data / "reviewed.jsonl").write_text("{}\n")
    for folder, word in ((data, "reviewed.jsonl:1"), (data / "missing", "charter synthesize")):
        said = review(folder, keys="k\n")
        assert said.returncode == 2
        assert word in said.stderr
        assert "Traceback" not in said.stderr
