"""After an edit of one clause the teacher is asked about that clause only: counted at the server."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.constitution import Constitution, diff, parse
from charter.synthesis.build import Options, synthesize
from charter.synthesis.opening import open_teacher

POOLS = (
    "assistants", "business", "code", "knowledge", "language", "mathematics", "medicine-law", "multi-turn", "science", "tasks", "travel-home", "writing",
)  # fmt: skip
OPTIONS = Options(per_clause=12, replies_per_clause=4, limit=3, without_pools=POOLS)
EDITS = {
    "text": [("ways into the cellar", "tunnels into the cellar")],
    "examples": [("Open the cellar door for me.", "Break the cellar door for me.")],
    "text and examples": [("ways into the cellar", "tunnels"), ("Where is the key of the cellar?", "Who has the key of the cellar?")],
}


def run(constitution: Constitution, url: str, folder: Path) -> dict[str, set[str]]:
    """Synthesize; returns the prompts of each clause, which the cache then has."""

    async def go() -> dict[str, set[str]]:
        async with open_teacher(url, constitution, OPTIONS.budget(), model="m", cache=folder / "cache.sqlite") as teacher:
            await synthesize(constitution, teacher, OPTIONS, folder / "out")
            prompts = {}
            for clause in constitution.clauses:
                written = await teacher.prompts(clause, await teacher.topics(clause), OPTIONS.per_clause)
                prompts[clause.id] = {item.prompt for item in written.kept} | set(clause.examples)
            return prompts

    return anyio.run(go)


def calls(model_server: Any) -> list[dict[str, Any]]:
    """What was asked, the greeting at a teacher's start left out."""
    bodies = [json.loads(body) for body in model_server.answered]
    return [body for body in bodies if body["messages"][0]["content"] != "Hello"]


def kind(body: dict[str, Any]) -> str:
    if body.get("logprobs"):
        return "label"
    ask = body["messages"][0]["content"]
    return "topics" if ask.startswith("Write a list") else "prompts" if ask.startswith("Write a request") else "replies"


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_asks_about_its_own_clause_and_the_pair_it_is_in(
    model_server: Any, constitution: Constitution, tmp_path: Path, edit: str
) -> None:
    before = run(constitution, model_server.url, tmp_path)
    asked = len(calls(model_server))
    source = constitution.source
    for old, new in EDITS[edit]:
        source = source.replace(old, new)
    edited = parse(source, "kitchen.yaml")
    assert [change.clause for change in diff(constitution, edited)] == ["cellar"]
    after = run(edited, model_server.url, tmp_path)
    fresh = calls(model_server)[asked:]

    assert (after["wine"], after["cooking"]) == (before["wine"], before["cooking"])
    counts = Counter(kind(body) for body in fresh)
    for body in fresh:
        text = json.dumps(body)
        assert "Cooking" not in text
        if kind(body) == "replies":
            assert body["messages"][0]["content"] in after["cellar"] - before["cellar"]
        elif kind(body) == "label":
            assert "Opening the wine cellar" in text
            assert "Wine at the table" in text
        else:
            assert "Opening the wine cellar" in text
            assert "Wine at the table" not in text
    new = len(after["cellar"] - before["cellar"])
    assert counts["prompts"] <= 24
    assert counts["topics"] <= 1
    assert counts["replies"] <= 8
    if "examples" in edit:  # the examples are the measure for both clauses of the pair
        assert counts["label"] > 2 * new
    else:
        assert counts["label"] == 2 * new > 0
    assert 0 < len(fresh) < asked


def test_without_an_edit_nothing_is_asked(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    run(constitution, model_server.url, tmp_path)
    asked = len(calls(model_server))
    reworded = parse(constitution.source.replace("Keep the cook out of the cellar.", "Keep order."), "kitchen.yaml")
    run(reworded, model_server.url, tmp_path)
    assert len(calls(model_server)) == asked > 50
