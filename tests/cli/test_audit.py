"""charter audit as a person uses it, and serve's refusal of a log that it can't write."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.audit.conftest import a_finding
from typer.testing import CliRunner

from charter.cli import app
from charter.errors import AuditError, DataError, NoData
from charter.gateway.audit.store import open_store


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A log of three flagged verdicts and a passed one."""
    path = str(tmp_path / "log.db")
    store = open_store(path, create=True)
    turns = json.dumps([{"role": "user", "content": "How do locks work?\x1b[2J"}])
    store.insert([a_finding(id=f"finding{n}", score=0.9 + n / 100, stage="prompt", content=turns) for n in range(3)])
    store.insert([a_finding(flagged=False, clause=None, position=None, action="allow", time="2026-01-02T00:00:00.000000+00:00")])
    store.close()
    return path


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["audit", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_summary_counts(db: str) -> None:
    text = said(db)
    assert "4 verdicts on 1 requests: 3 flagged, 3 blocked, 0 unscored" in text
    assert "3 flagged verdicts wait for a decision" in text
    told: dict[str, Any] = json.loads(said(db, "--json"))
    assert [day["verdicts"] for day in told["days"]] == [1, 3]
    assert json.loads(said(db, "--json", "--until", "2026-01-02"))["flagged"] == 0


def test_review_mark_and_export_follow_on_one_another(db: str, tmp_path: Path) -> None:
    shown = said(db, "--review", "2")
    assert shown.splitlines()[0].startswith("finding0  0.900  words")
    assert "How do locks work?" in shown
    assert "\x1b" not in shown
    assert said(db, "--mark", "finding0=harmless", "--mark", "finding1=restricted") == "2 decided\n"
    assert [row["id"] for row in json.loads(said(db, "--review", "9", "--json"))["queue"]] == ["finding2"]
    assert "1 of 2 [0.01, 0.99]" in said(db)
    out = tmp_path / "rows.jsonl"
    assert said(db, "--export", str(out)).startswith("2 rows written, 0 left out")
    assert [json.loads(line)["label"] for line in out.read_text().splitlines()] == ["safe", "harmful"]


def test_reading_changes_nothing(db: str) -> None:
    connection = sqlite3.connect(db)
    before = list(connection.iterdump())
    for arguments in ((), ("--json",), ("--review", "3")):
        said(db, *arguments)
    assert list(connection.iterdump()) == before
    connection.close()


@pytest.mark.parametrize(
    ("arguments", "kind", "mend"),
    [
        (("nothing.db",), AuditError, "no such audit log"), (("DB", "--since", "yesterday"), DataError, "2026-11-21"),
        (("DB", "--mark", "finding0"), DataError, "is no decision"), (("DB", "--since", "2030-01-01"), NoData, "widen"),
        (("DB", "--export", "rows.jsonl"), NoData, "mark some"), (("oracle://x",), AuditError, "oracle://"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(arguments: tuple[str, ...], kind: type[Exception], mend: str, db: str) -> None:
    with pytest.raises(kind, match=mend):
        said(*(db if a == "DB" else a for a in arguments))
