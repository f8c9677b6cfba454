"""`charter forecast` as it is typed: table, JSON, and one sentence for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.cli.forecast import count
from charter.errors import DataError
from charter.forecast.elicitation import log_probability
from charter.forecast.validation import PowerLaw

MAIN = "from charter.cli import main; main()"


def charter(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", MAIN, "forecast", *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    log_p = log_probability(PowerLaw().draw(1_500, np.random.default_rng(0)))
    path.write_text("".join(json.dumps({"log_p": float(x)}) + "\n" for x in log_p))
    return path


def test_json_holds_every_figure_with_its_interval_and_the_same_seed_gives_the_same(rows: Path) -> None:
    arguments = (rows, "--n", "1e5", "--n", "2_000_000", "--threshold", "1e-6", "--level", "0.9", "--json")
    first, again = charter(*arguments), charter(*arguments)
    assert (first.returncode, first.stdout) == (0, again.stdout)
    told = json.loads(first.stdout)
    assert [at["n"] for at in told["forecasts"]] == [1e5, 2e6]
    assert (told["m"], told["level"], told["seed"], told["tail"]["method"]) == (1_500, 0.9, 0, "likelihood")
    truth = np.exp(PowerLaw().log_p(-np.expm1(np.log(0.5) / 1e5)))
    worst = told["forecasts"][0]["worst"]
    assert worst["low"] < truth < worst["high"]
    assert told["forecasts"][0]["worst_log10"]["value"] == pytest.approx(np.log10(worst["value"]))
    for figure in ("worst", "maximum", "aggregate", "expected"):
        assert all(0 <= at[figure]["low"] <= at[figure]["value"] <= at[figure]["high"] <= 1 for at in told["forecasts"])
    assert told["validation"]["worst"]["n"] == 50
    assert told["frequency"][0]["threshold"] == 1e-6


def test_the_table_says_what_it_rests_on(rows: Path) -> None:
    told = charter(rows, "--n", "1e7")
    assert told.returncode == 0
    assert "1,500 queries" in told.stdout
    assert "own check, 50 random 150 of these queries forecasting the other 1,350" in told.stdout
    assert "caution: n is 6,667 times" in told.stdout


def test_sabotage_reads_trials_and_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = [{"kind": "attack", "harm": i % 3 == 0, "own": i / 60, "suspicion": float(rng.uniform())} for i in range(60)]
    found += [{"kind": "honest", "suspicion": float(rng.beta(1, 9))} for _ in range(300)]
    states = (("original", True), ("locked", False), ("unlocked", True))
    found += [{"kind": "answer", "item": str(i), "state": s, "right": r} for i in range(20) for s, r in states]
    path = tmp_path / "trials.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    told = json.loads(charter(path, "--sabotage", "--n", "1000", "--json").stdout)
    assert told["sabotage"]["monitor"]["false_alarms"]["value"] <= 0.01
    assert told["sabotage"]["win"]["n"] == 60
    assert told["recovered"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 20}
    said = charter(path, "--sabotage", "--n", "1000").stdout
    assert "attacker over 1,000 opportunities" in said
    assert "too little" not in said  # 300 honest items certify 1 %


def test_a_mistake_is_one_sentence_and_exit_code_2(rows: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"log_p": -3}\n{"log_p": 3}\n')
    for arguments, said in (
        ((bad, "--n", "1e6"), "bad.jsonl:2"),
        ((rows,), "--n 1e6"),
        ((rows, "--n", "many"), "--n many"),
        ((rows, "--sabotage", "--n", "10"), '"kind" must be'),
    ):
        told = charter(*arguments)
        assert told.returncode == 2
        assert told.stdout == ""
        assert told.stderr.startswith("error: ")
        assert told.stderr.count("\n") == 1
        assert said in told.stderr


@given(st.integers(1, 10**15))
def test_counts_are_read_as_they_are_written(n: int) -> None:
    assert count(str(n)) == count(f"{n:,}") == count(f"{n:_}") == n


@pytest.mark.parametrize("text", ["", "0", "-5", "nan", "inf", "1e16", "six"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="such as 1e6"):
        count(text)
