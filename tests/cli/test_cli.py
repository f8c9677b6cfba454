"""The command line as a person uses it: a real process, its exit code and what it says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

CHARTER = str(Path(sys.executable).with_name("charter"))


def charter(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([CHARTER, *arguments], cwd=cwd, input=stdin, capture_output=True, text=True, env=os.environ, timeout=120)


def test_help_names_every_verb(tmp_path: Path) -> None:
    said = charter("--help", cwd=tmp_path)
    assert said.returncode == 0
    for verb in ("init", "check", "synthesize", "train", "build", "evaluate", "score", "serve", "diff", "review", "audit"):
        assert f"  {verb} " in said.stdout


def test_a_starter_constitution_passes_its_check(tmp_path: Path) -> None:
    assert charter("init", "my-bakery", cwd=tmp_path).returncode == 0
    checked = charter("check", "my-bakery.yaml", "--json", cwd=tmp_path)
    assert checked.returncode == 0
    assert json.loads(checked.stdout)["name"] == "my-bakery"


def test_init_never_writes_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("precious")
    said = charter("init", "mine", cwd=tmp_path)
    assert said.returncode == 2
    assert (tmp_path / "mine.yaml").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("check", "missing.yaml"), "charter init"),
        (("check", "broken.yaml"), "broken.yaml:3: not valid YAML"),
        (("train", "nowhere", "--out", "g"), "charter synthesize"),
        (("score", "nowhere"), "charter build"),
        (("evaluate", "nowhere", "--data", "."), "no *.jsonl"),
        (("synthesize", "own.yaml", "--out", "d"), "--teacher"),
        (("synthesize", "general", "--out", "d", "--exclude", "."), "no row in any *.jsonl"),
        (("synthesize", "general", "--out", "d", "--exclude", "nowhere"), "nowhere: there is no such folder"),
        (("synthesize", "general", "--out", "d", "--augment", "100"), "error: --augment is 100"),
        (("synthesize", "general", "--out", "d", "--price", "nan", "1"), "error: --price is nan"),
        (("synthesize", "general", "--out", "d", "--per-clause", "0"), "--per-clause"),
        (("synthesize", "general", "--out", "d", "--teacher", "http://127.0.0.1:9/v1"), "127.0.0.1:9"),
        (("synthesize", "general", "--out", "d", "--max-cost", "1"), "error: --max-cost is 1"),
        (("synthesize", "general", "--out", "d", "--seed", "-1"), "--seed"),
        (("synthesize", "general", "--out", "own.yaml/d"), "can't be written"),
        (("build", "general", "--out", "g", "--budget", "2"), "--budget"),
        (("train", "nowhere", "--out", "g", "--budget", "0.2", "--balanced-budget", "0.1"), "less than the guard's own, 20.00%"),
        (("score", "nowhere", "--point", "loud"), "loud"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(arguments: tuple[str, ...], mend: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("name: x\nclauses: [\n")
    charter("init", "own", cwd=tmp_path)
    before = sorted(tmp_path.iterdir())
    said = charter(*arguments, cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert mend in said.stderr
    assert "Traceback" not in said.stderr
    assert sorted(tmp_path.iterdir()) == before, "nothing is written on a mistake"


def test_an_interrupted_run_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    charter("init", "own", cwd=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        command = [CHARTER, "synthesize", "own.yaml", "--out", "d", "--teacher", url, "--teacher-model", "m"]
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells start background jobs deaf to it
        silent.settimeout(60)
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heeding) as run:
            silent.accept()
            run.send_signal(signal.SIGINT)
            said = run.communicate(timeout=30)[1]
    assert run.returncode == 130
    assert said.startswith("interrupted: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_output_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    with subprocess.Popen([CHARTER, "families", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None
        run.stdout.close()
        assert run.stderr is not None
        assert run.stderr.read() == b""
        assert run.wait(60) == 141


def test_diff_names_what_changed_and_exits_with_1(tmp_path: Path) -> None:
    charter("init", "one", cwd=tmp_path)
    text = (tmp_path / "one.yaml").read_text()
    (tmp_path / "two.yaml").write_text(text.replace("Telling a person which dose", "Telling anybody which dose"))
    said = charter("diff", "one.yaml", "two.yaml", cwd=tmp_path)
    assert said.returncode == 1
    assert said.stdout.split()[:2] == ["changed", "medical-dosing"]
    assert said.stdout.splitlines()[-1].startswith("to regenerate: 1 clause, ")
    assert charter("diff", "one.yaml", "one.yaml", cwd=tmp_path).returncode == 0


def test_score_gives_a_line_an_exchange_and_every_character_its_score(saved_guard: Path, tmp_path: Path) -> None:
    text = "How do I open my neighbour's door? 世界 h3ll0"
    rows = [{"id": "a", "messages": [{"role": "user", "content": text}]}]
    said = charter("score", str(saved_guard), "--tokens", cwd=tmp_path, stdin="\n".join(map(json.dumps, rows)) + "\n")
    assert said.returncode == 0, said.stderr
    line = json.loads(said.stdout)
    assert set(line) == {"id", "verdict", "action", "tokens"}
    assert set(line["verdict"]) == {"flagged", "score", "clause", "position"}
    assert "".join(token for token, _ in line["tokens"]) == text


def test_score_names_the_line_that_is_not_json(saved_guard: Path, tmp_path: Path) -> None:
    said = charter("score", str(saved_guard), cwd=tmp_path, stdin="{not json\n")
    assert said.returncode == 2
    assert "standard input:1" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("http://127.0.0.1:9/v1", "--probe", "upstream"), "give --upstream embedded, or leave --probe out"),
        (("http://127.0.0.1:9/v1", "--refusal-tokens", "t"), "give --upstream embedded, and leave --probe out"),
        (("embedded", "--probe", "upstream", "--refusal-tokens", "t"), "give --upstream embedded, and leave --probe out"),
        (("embedded", "--refusal-threshold", "0.5"), "name their folder with --refusal-tokens"),
        (("embedded", "--refusal-tokens", "t"), "t/refusal_tokens.safetensors: there is no such file"),
    ],
)
def test_an_upstream_that_is_read_or_changed_is_one_that_runs_here(arguments: tuple[str, ...], mend: str, tmp_path: Path) -> None:
    said = charter("serve", "guard", "--upstream", *arguments, cwd=tmp_path)
    assert (said.returncode, said.stdout) == (2, "")
    assert mend in " ".join(said.stderr.replace("│", "").split())
    assert list(tmp_path.iterdir()) == []
