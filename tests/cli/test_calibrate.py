"""`charter calibrate` as a person uses it: what it prints, what it leaves, its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept import save_kept

from charter.cli.calibrate import budgets
from charter.errors import DataError

CHARTER = str(Path(sys.executable).with_name("charter"))


def charter(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CHARTER, "calibrate", *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


@given(st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True), st.floats(1e-6, 0.5))
def test_a_clauses_budget_is_read_back_as_it_was_written(name: str, rate: float) -> None:
    assert budgets([f"{name}={rate!r}"]) == {name: rate}
    assert budgets([f"{name}=0"]) == {name: 0.0}


@pytest.mark.parametrize(
    "text", ["fraud", "fraud=", "fraud=x", "fraud=-0.1", "fraud=0.6", "fraud=nan", "fraud=inf", "fraud=1e-9", "fraud=0.1=0.2", "=0.7"]
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="write a clause and its share"):
        budgets([text])


def test_a_clause_given_twice_is_refused() -> None:
    with pytest.raises(DataError, match="fraud: is given twice"):
        budgets(["fraud=0.1", "fraud=0.2"])


def test_other_budgets_are_told_and_kept(tmp_path: Path) -> None:
    save_kept(tmp_path / "guard")
    said = charter("guard", "--budget", "0.02", "--clause", "locks=0.01", "--out", "strict", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert [line.split(":")[0] for line in said.stdout.splitlines()] == ["prompt", "  locks", "exchange", "  locks"]
    assert "threshold" in said.stdout
    assert json.loads((tmp_path / "strict" / "guard.json").read_text())["budget"] == 0.02
    assert json.loads((tmp_path / "guard" / "guard.json").read_text())["budget"] == 0.05
    told = charter("strict", "--json", cwd=tmp_path)
    assert set(json.loads(told.stdout)["prompt"]["clauses"]) == {"locks"}


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("nowhere",), "charter build"),
        (("guard", "--clause", "dragons=0.1"), "no head for the clause 'dragons'"),
        (("guard", "--check", "t.jsonl", "--budget", "0.1"), "--check changes nothing"),
        (("guard", "--check", "missing.jsonl"), "no such file of traffic"),
        (("guard", "--budget", "0.01", "--clause", "locks=0.3"), "lower the clauses' budgets"),
        (("guard", "--balanced-budget", "0.01"), "the balanced point's budget of 1.00% is less than the guard's own, 5.00%"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(arguments: tuple[str, ...], mend: str, tmp_path: Path) -> None:
    save_kept(tmp_path / "guard")
    before = {path.name: path.read_bytes() for path in (tmp_path / "guard").iterdir()}
    said = charter(*arguments, cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert mend in said.stderr
    assert "Traceback" not in said.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "guard").iterdir()} == before


def test_a_check_exits_with_0_or_1_and_changes_nothing(saved_guard: Path, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"How do locks work in town {n}?"}], "slice": "chat"} for n in range(3)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = (saved_guard / "guard.json").read_bytes()
    said = charter(str(saved_guard), "--check", "t.jsonl", "--json", cwd=tmp_path)
    found = json.loads(said.stdout)
    assert found["views"]["prompt"]["all rows"]["n"] == 3
    assert said.returncode == (0 if found["holds"] else 1)
    assert (saved_guard / "guard.json").read_bytes() == before
