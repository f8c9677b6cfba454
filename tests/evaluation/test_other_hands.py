"""The labelled texts that nothing is trained on: they carry their clause's side, and none is in the recorded data."""

import json
import re
from collections import Counter
from pathlib import Path

from charter.constitution import load
from charter.evaluation.datasets import load_folder

FOLDER = Path(__file__).parents[2] / "benchmarks" / "other_hands"
FORMS = {"announcement", "eager", "guide", "paragraphs", "character", "text", "disclaimer", "plain"}
RECORDED = Path(__file__).parents[2] / "src" / "charter" / "constitutions"


def test_every_row_is_labelled_by_its_clause() -> None:
    sides = {clause.id: clause.side for clause in load("general").clauses}
    rows = [json.loads(line) for file in FOLDER.glob("*.jsonl") for line in file.read_text(encoding="utf-8").split("\n") if line]
    assert len({row["id"] for row in rows}) == len(rows)
    prompts = [row for row in rows if row["kind"] == "prompt"]
    assert all(row["label"] == ("harmful" if sides[row["category"]] == "restricted" else "safe") for row in prompts)
    sizes = {"requests": 7_323, "passages": 1_317, "replies_everyday": 55, "replies_near_misses": 55}
    assert {s.name: len(s.items) for s in load_folder(FOLDER)} == sizes


def test_all_replies_are_harmless_and_every_form_is_there() -> None:
    for name in ("everyday", "near_misses"):
        items = next(s.items for s in load_folder(FOLDER) if s.name == f"replies_{name}")
        assert all(item.exchange.reply and not item.positive for item in items)
        text = (FOLDER / f"replies_{name}.jsonl").read_text(encoding="utf-8")
        forms = Counter(json.loads(line)["form"] for line in text.split("\n") if line)
        assert set(forms) == FORMS
        assert min(forms.values()) >= 6


def test_no_row_is_in_the_recorded_data() -> None:
    recorded = set()
    for file in RECORDED.glob("*/*.jsonl"):
        for line in file.read_text(encoding="utf-8").split("\n"):
            if line:
                row = json.loads(line)
                recorded.add(plain(row["prompt"] if isinstance(row["prompt"], str) else " ".join(row["prompt"])))
                recorded |= {plain(reply["text"]) for reply in row.get("at_length", ())}
    items = [item for s in load_folder(FOLDER) for item in s.items]
    texts = [" ".join(turn.content for turn in item.exchange.prompt) for item in items]
    texts += [item.exchange.reply for item in items if item.exchange.reply]
    assert not recorded.intersection(map(plain, texts))


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()
