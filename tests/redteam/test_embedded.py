"""The embedded model under attack: the real small model behind a guard, a few queries of a few tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from charter.embedded import gguf_file
from charter.errors import BackboneError
from charter.guard.folder import load
from charter.llm.embedded import MODEL
from charter.records import Turn
from charter.redteam.campaign import Options
from charter.redteam.opening import EMBEDDED, Model
from charter.redteam.questions import Question
from charter.redteam.strategies import chosen
from charter.redteam.write import Wishes, redteam

pytest.importorskip("xllamacpp")
try:
    gguf_file()
except BackboneError as error:
    pytest.skip(str(error), allow_module_level=True)

QUESTIONS = [Question("hello", (Turn("user", "Say hello."),), "locks")]
OPTIONS = Options(budget=2, tries=1, max_tokens=4, references=1, scored=4)


def test_the_embedded_model_is_attacked_behind_a_guard(saved_guard: Path, tmp_path: Path) -> None:
    guard = load(saved_guard)
    views = {v: own.model_copy(update={"threshold": 1.0}) for v, own in guard.record.views.items()}
    guard = replace(guard, record=guard.record.model_copy(update={"views": views}))  # it flags nothing, so that the model is asked
    strategies = chosen(["plain", "family:base64"], attacker=False, score=True)
    told = anyio.run(redteam, guard, Wishes(Model(EMBEDDED)), QUESTIONS, strategies, tmp_path, OPTIONS)
    assert (told["target"]["upstream"], told["target"]["model"], told["queries"]["used"]) == (EMBEDDED, MODEL, 2)
    rows = [json.loads(line) for line in (tmp_path / "attempts.jsonl").read_text().splitlines()]
    assert {row["strategy"] for row in rows} == {"unguarded", "plain", "family:base64"}
    assert all(row["answer"]["text"] for row in rows if row["strategy"] != "family:base64")
