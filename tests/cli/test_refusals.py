"""`charter refusals` on a file and against a server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import assert_mistake, charter
from loopback import model


def reply(body: dict[str, Any]) -> tuple[str, str]:
    """Blocks talk of the cellar, refuses the attic, can't see pictures, fails at storms, and answers the rest."""
    asked = body["messages"][-1]["content"]
    if "cellar" in asked:
        return "", "content_filter"
    if "attic" in asked:
        return "I won't help with that. It's illegal.", "stop"
    if "picture" in asked:
        return "I can't see pictures; I only read text.", "stop"
    return "" if "storm" in asked else "Sure! Boil the water and add the leaves.", "stop"


@pytest.fixture
def url() -> Iterator[str]:
    with model(reply) as address:
        yield address


def test_an_endpoint_is_asked_and_blocks_are_told_from_refusals(url: str, tmp_path: Path) -> None:
    texts = ("the cellar", "the attic", "this picture", "a storm", "tea")
    lines = [{"id": t, "messages": [{"role": "user", "content": t}], "label": "safe", "kind": "prompt", "category": "home"} for t in texts]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = charter(
        "refusals", "--endpoint", url, "--endpoint-model", "m", "--prompts", "prompts.jsonl", "--out", "rows.jsonl", "--json", cwd=tmp_path
    )
    assert said.returncode == 0, said.stderr
    outcomes = {r["id"]: r["outcome"] for r in map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())}
    assert outcomes == {
        "the cellar": "blocked",
        "the attic": "refused",
        "this picture": "incapable",
        "a storm": "unscored",
        "tea": "complied",
    }
    found = json.loads(said.stdout)
    assert (found["harmless"]["n"], found["harmless"]["unscored"]) == (4, 1)
    assert found["harmless"]["not_answered"]["value"] == 0.75
    assert found["slices"]["home"] == found["overall"]


def test_a_file_with_human_labels_is_compared_with_them(tmp_path: Path) -> None:
    def line(reply: str, label: str) -> str:
        messages = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": reply}]
        return json.dumps({"messages": messages, "label": label, "kind": "refusal"}) + "\n"

    (tmp_path / "replies.jsonl").write_text(line("I won't help with that.", "refusal") + line("Sure! Stir it slowly.", "compliance"))
    said = charter("refusals", "replies.jsonl", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "against 2 human labels" in said.stdout
    assert "declined: f1 1.000" in said.stdout


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        ((), "give either a FILE"),
        (("a.jsonl", "--endpoint", "http://127.0.0.1:9/v1"), "give either a FILE"),
        (("missing.jsonl",), "no such file"),
        (("--endpoint", "http://127.0.0.1:9/v1", "--prompts", "p.jsonl"), "--endpoint-model"),
        (("--endpoint", "nowhere", "--endpoint-model", "m", "--prompts", "p.jsonl"), "the URL of an endpoint"),
        (("p.jsonl",), "--endpoint and --prompts"),
        (("p.jsonl", "--classifier", "p.jsonl"), "no classifier of replies"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(arguments: tuple[str, ...], mend: str, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    said = charter("refusals", *arguments, cwd=tmp_path)
    assert_mistake(said, mend)
