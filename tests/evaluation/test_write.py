from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from charter.evaluation.datasets import Set
from charter.evaluation.write import measure, write
from charter.guard.folder import Guard

INTERVAL = {"value", "low", "high", "n"}


@pytest.fixture(scope="module")
def out(guard: Guard, sets: list[Set], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    returned, _ = measure(guard, sets, out, replays=2, command="charter evaluate tiny")
    assert json.loads((out / "evaluation.json").read_text(encoding="utf-8")) == returned
    return out


@pytest.fixture(scope="module")
def written(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    return found


def test_the_file_has_exactly_the_agreed_keys(written: dict[str, Any]) -> None:
    assert {"schema", "guard", "seed", "sets", "slices", "families", "streaming", "cost"} == set(written) - {
        "clauses",
        "left_out",
        "command",
        "stages",
        "point",
        "precision",
        "windowed",
        "languages",
        "held_out",
        "against",
    }
    assert set(written["guard"]) == {"name", "hash", "constitution", "budget"}
    for figures in written["sets"].values():
        assert set(figures) == {"kind", "n", "positives", "clusters", "auroc", "auprc", "f1", "recall", "fpr", "recall_at_fpr"}
        assert set(figures["recall_at_fpr"]) == {"0.001", "0.005", "0.01"}
        assert all(set(figures[key]) == INTERVAL for key in ("auroc", "auprc", "f1", "recall", "fpr"))
        assert all(set(interval) == INTERVAL for interval in figures["recall_at_fpr"].values())
    assert all(set(row) == {"n", "flagged", "fpr"} for row in written["slices"].values())
    assert all(set(row) == {"n", "recall"} for row in written["families"].values())
    assert {"released_unscored_chars", "released_after_verdict_chars", "tokens_before_halt", "per_token_ms"} <= set(written["streaming"])
    assert {"guard_flops_per_token", "upstream_flops_per_token", "overhead", "escalation_rate"} == set(written["cost"]) - {
        "upstream",
        "seconds",
    }
    assert [set(stage) for stage in written["stages"]] == [{"name", "flops_per_token", "read"}]
    assert set(written["streaming"]["seconds_per_token"]) == {"screen", "probe", "guard"}
    assert (written["point"], written["precision"]) == ("quiet", "float32")


def test_what_was_left_out_and_the_command_are_told(written: dict[str, Any]) -> None:
    assert written["left_out"] == {"heldout_reply": {"label controversial": 2}}
    assert written["command"] == "charter evaluate tiny"


def test_a_second_run_from_kept_scores_gives_the_same_figures(guard: Guard, sets: list[Set], out: Path, written: dict[str, Any]) -> None:
    again, _ = measure(guard, sets, out, replays=0, command="charter evaluate tiny")
    timed = {"streaming", "cost"}
    assert {k: v for k, v in again.items() if k not in timed} == {k: v for k, v in written.items() if k not in timed}
    assert {k: v for k, v in again["cost"].items() if k != "seconds"} == {k: v for k, v in written["cost"].items() if k != "seconds"}
    assert again["streaming"]["released_unscored_chars"] is None


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    write(path, {"schema": 1})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="Out of range"):
        write(path, {"schema": float("nan")})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]
