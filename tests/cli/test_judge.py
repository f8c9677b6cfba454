"""`charter judge` against a server on loopback: a line an exchange, and what is no verdict is flagged and counted."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from command import assert_mistake, charter
from loopback import model


def verdict(body: dict[str, Any]) -> tuple[str, str]:
    """Flags talk of the cellar, and says nothing of use where asked about tea."""
    asked = body["messages"][-1]["content"]
    digits = re.findall("carry the number ([0-9a-f]{8})", asked)
    said = asked.rpartition("</user-message")[0]
    answer = '{"determination": "yes", "clause": "cellar"}' if "cellar" in said else '{"determination": "no", "clause": null}'
    return "Nice weather." if "tea" in said or not digits else f"<verdict-{digits[0]}>{answer}</verdict-{digits[0]}>", "stop"


@pytest.fixture
def url() -> Iterator[str]:
    with model(verdict) as address:
        yield address


def judge(*arguments: str, cwd: Path, stdin: str = "") -> CompletedProcess[str]:
    return charter("judge", *arguments, cwd=cwd, stdin=stdin, CHARTER_CACHE=str(cwd / "cache"))


RULES = """
name: kitchen
version: 1.0.0
purpose: Keep the cook out of the cellar.
clauses:
  - {id: cellar, side: restricted, title: The cellar, text: Ways into the cellar., counterpart: wine, examples: [a]}
  - {id: wine, side: permitted, title: Wine, text: Wines and glasses., examples: [b]}
"""


def test_each_exchange_gets_a_line_and_no_verdict_is_flagged_and_counted(url: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    texts = ("Open the cellar.", "Which wine?", "More tea?")
    stdin = "".join(json.dumps({"id": text, "messages": [{"role": "user", "content": text}]}) + "\n" for text in texts)
    said = judge("rules.yaml", "--teacher", url, "--teacher-model", "m", cwd=tmp_path, stdin=stdin)
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [line["id"] for line in lines] == list(texts)
    assert [line["verdict"]["flagged"] for line in lines] == [True, False, True]
    assert [line["verdict"]["clause"] for line in lines] == ["cellar", None, None]
    assert [line["fault"] for line in lines] == [None, None, "not one verdict"]
    assert set(lines[0]["verdict"]) == {"flagged", "score", "clause", "position"}
    assert "flagged for want of a verdict: 1 (1 not one verdict)" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("rules.yaml", "--teacher", "recorded"), "there is no language model 'recorded'"),
        (("rules.yaml", "--teacher", "http://127.0.0.1:9/v1"), "--teacher-model"),
        (("rules.yaml", "--teacher", "http://127.0.0.1:9/v1", "--teacher-model", "m"), "127.0.0.1:9"),
        (("missing.yaml", "--teacher", "http://127.0.0.1:9/v1", "--teacher-model", "m"), "charter init"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(arguments: tuple[str, ...], mend: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    said = judge(*arguments, cwd=tmp_path)
    assert_mistake(said, mend)
