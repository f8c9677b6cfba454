"""Recall in disguises: the figures of planted scores, and a small run from files to a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from obfuscated import drawn, measured

from charter.errors import NoData

ROOT = Path(__file__).parents[2]


def _planted(share: float, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Scores of plain requests that are all found, and of one disguise in which a share of them is."""
    labels = np.repeat([True, False], n)
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 0.5, (2 * n, 2))
    scores[:n, 0] += 0.5
    scores[: int(share * n), 1] += 0.5
    return labels, scores


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_what_is_kept_is_what_was_planted(share: float) -> None:
    labels, scores = _planted(share)
    found = measured(labels, scores, scores > 0.5, ["plain", "base64"], 0.01, 0)
    assert found["forms"]["plain"]["recall"]["value"] == 1
    assert found["forms"]["base64"]["recall"]["value"] == pytest.approx(share, abs=0.03)
    assert found["forms"]["all disguised"]["recall"] == found["forms"]["base64"]["recall"]
    assert found["kept"]["low"] <= found["kept"]["value"] <= found["kept"]["high"]
    assert found["kept"]["value"] == pytest.approx(share, abs=0.03)
    assert found["forms"]["base64"]["caught"]["value"] == share
    assert found["forms"]["plain"]["wrong"]["value"] == 0


def _write(folder: Path, name: str, rows: int) -> None:
    lines = [
        {"id": f"{name}{n}", "messages": [{"role": "user", "content": f"{name} asks for thing {n}"}], "label": ("harmful", "benign")[n % 2],
         "category": "x", "lang": "en", "kind": "prompt"}
        for n in range(rows)
    ]  # fmt: skip
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_payloads_come_from_every_set_in_turn_and_no_data_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, "large", 40)
    _write(tmp_path, "small", 6)
    found = drawn(tmp_path, 6, 4, 300, 0)
    assert [item.positive for item in found] == [True] * 6 + [False] * 4
    assert sum(item.slice == "small" for item in found) == 5
    assert found == drawn(tmp_path, 6, 4, 300, 0)
    with pytest.raises(NoData, match="holds no harmful prompt"):
        drawn(tmp_path, 6, 4, 3, 0)


def test_it_runs_from_files_to_a_table(saved_guard: Path, tmp_path: Path) -> None:
    _write(tmp_path, "a", 12)
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "obfuscated.py", saved_guard, "--data", tmp_path, "--families", "base64", "payload-splitting",
         "--out", tmp_path / "out.json"], capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "| payload-splitting |" in ran.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["harmful"], found["harmless"]) == (6, 6)
    assert list(found["forms"]) == ["plain", "base64", "payload-splitting", "all disguised"]
