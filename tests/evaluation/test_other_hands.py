"""The labelled prompts that nothing is trained on: they carry their clause's side, and none is in the recorded data."""

import json
import re
from pathlib import Path

from charter.constitution import load
from charter.evaluation.datasets import load_folder

FOLDER = Path(__file__).parents[2] / "benchmarks" / "other_hands"
RECORDED = Path(__file__).parents[2] / "src" / "charter" / "constitutions"


def test_every_row_is_labelled_by_its_clause() -> None:
    sides = {clause.id: clause.side for clause in load("general").clauses}
    rows = [json.loads(line) for file in FOLDER.glob("*.jsonl") for line in file.read_text(encoding="utf-8").split("\n") if line]
    assert len({row["id"] for row in rows}) == len(rows)
    assert all(row["label"] == ("harmful" if sides[row["category"]] == "restricted" else "safe") for row in rows)
    assert {s.name: len(s.items) for s in load_folder(FOLDER)} == {"requests": 7_323, "passages": 1_317}


def test_no_row_is_in_the_recorded_data() -> None:
    recorded = set()
    for file in RECORDED.glob("*/*.jsonl"):
        for line in file.read_text(encoding="utf-8").split("\n"):
            if line:
                prompt = json.loads(line)["prompt"]
                recorded.add(plain(prompt if isinstance(prompt, str) else " ".join(prompt)))
    texts = [" ".join(turn.content for turn in item.exchange.turns) for s in load_folder(FOLDER) for item in s.items]
    assert not recorded.intersection(map(plain, texts))


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()
