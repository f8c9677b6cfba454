"""At another precision the sets are scored by the same guard, kept apart on disk, and told in evaluation.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from charter.cli import app
from charter.errors import BackboneError
from charter.evaluation.datasets import Set
from charter.evaluation.precision import sixteen_bits
from charter.evaluation.run import evaluate
from charter.evaluation.write import measure
from charter.guard.folder import Guard, load


@pytest.fixture(scope="module")
def reader(guard_path: Path) -> Guard:
    try:
        return sixteen_bits(load(guard_path))
    except BackboneError as error:
        assert "float32" in str(error)
        pytest.skip("this processor has no instructions for bfloat16")


def test_scores_are_nearly_the_same_and_never_mixed_up(guard: Guard, reader: Guard, sets: list[Set], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    exact, rounded = (evaluate(g, sets, scores=path) for g in (guard, reader))
    n = len({json.loads(line)["key"] for line in path.read_text().splitlines()})
    assert n == len(path.read_text().splitlines())
    assert n == 2 * len({item.exchange.turns for s in sets for item in s.items})
    assert (exact.precision, rounded.precision) == ("float32", "bfloat16")
    assert exact.guard_hash == rounded.guard_hash
    for a, b in zip(exact.sets, rounded.sets, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=0.05)
        assert not np.array_equal(a.scores, b.scores)  # else nothing was rounded


def test_streams_and_seconds_stay_those_of_what_serves(guard: Guard, reader: Guard, sets: list[Set], tmp_path: Path) -> None:
    told, results = measure(guard, sets, tmp_path, replays=1, reader=reader)
    assert told["precision"] == results.precision == "bfloat16"
    assert guard.cascade.backbone.dtype == "float32"
    plain, _ = measure(guard, sets, tmp_path / "plain", replays=1)
    assert set(told) == set(plain)
    assert told["streaming"]["tokens_before_halt"] == plain["streaming"]["tokens_before_halt"]


def test_the_command_takes_it(guard_path: Path, reader: Guard, tmp_path: Path) -> None:
    assert reader.cascade.backbone.dtype == "bfloat16"
    rows = [
        {"messages": [{"role": "user", "content": f"Tell me about the {animal}."}], "label": label, "kind": "prompt", "id": animal}
        for animal, label in (("wolf", "harmful"), ("goat", "safe"))
    ]
    (tmp_path / "animals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", str(guard_path), "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--precision", "bfloat16"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["precision"] == "bfloat16"
