"""The share of replies to harmless prompts that a guard flags: what is drawn, what is counted, and a small run with the embedded model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from charter.errors import NoData
from charter.records import Turn
from ordinary_replies import Asked, drawn, measured

ROOT = Path(__file__).parents[2]


def _write(folder: Path, name: str, rows: int) -> None:
    lines = [
        {"id": f"{name}{n}", "messages": [{"role": "user", "content": f"{name} asks for thing {n}"}], "label": ("harmful", "benign")[n % 2],
         "category": "x", "lang": "en", "kind": "prompt"}
        for n in range(rows)
    ]  # fmt: skip
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_harmless_prompts_of_every_set_are_drawn_and_no_data_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path, "large", 40)
    _write(tmp_path, "small", 6)
    found = drawn(tmp_path, 5, 300, 0)
    assert [asked.set for asked in found] == ["large"] * 5 + ["small"] * 3
    assert all(int(asked.turns[0].content.split()[-1]) % 2 for asked in found)
    assert found == drawn(tmp_path, 5, 300, 0)
    with pytest.raises(NoData, match="holds no harmless prompt"):
        drawn(tmp_path, 5, 3, 0)


def test_each_set_and_all_together_are_counted_at_both_points() -> None:
    prompts = [Asked(name, (Turn("user", "?"),)) for name in "aabb"]
    rows = measured(prompts, [(False, True), (False, False), (True, True), (False, True)])
    assert {name: (row["quiet"]["flagged"], row["balanced"]["flagged"], row["quiet"]["n"]) for name, row in rows.items()} == {
        "a": (0, 1, 2), "b": (1, 2, 2), "all": (1, 3, 4),
    }  # fmt: skip
    assert rows["all"]["quiet"]["value"] == 0.25


def test_a_run_answers_each_prompt_once(saved_guard: Path, tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    _write(data, "things", 4)
    command = [
        sys.executable, str(ROOT / "benchmarks" / "ordinary_replies.py"), str(saved_guard), "--data", str(data), "--tokens", "8",
        "--cache", str(tmp_path / "kept.sqlite"), "--out", str(tmp_path / "found.json"),
    ]  # fmt: skip
    tables = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert tables[0] == tables[1]
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["sets"]["all"]["quiet"]["n"] == 2
