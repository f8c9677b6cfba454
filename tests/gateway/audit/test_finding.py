"""A row survives being written and read, and what is no row is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.audit.conftest import a_finding

from charter.errors import DataError
from charter.gateway.audit.finding import COLUMNS, parse_finding


@given(text=st.text(st.characters()), score=st.floats(0, 1), position=st.none() | st.integers(0, 2**31 - 1), flagged=st.booleans())
def test_a_line_reads_back_as_it_was_written(text: str, score: float, position: int | None, flagged: bool) -> None:
    finding = a_finding(content=json.dumps([{"role": "user", "content": text}]), score=score, position=position, flagged=flagged)
    line = finding.line()
    assert "\n" not in line
    assert line.isascii()
    assert parse_finding(line, "here") == finding


@pytest.mark.parametrize(
    "change", [{"score": "high"}, {"flagged": 1}, {"id": None}, {"position": 1.5}, {"choice": None}, {"more": 1}, {"clause": ["words"]}]
)
def test_what_is_no_row_is_told(change: dict[str, Any]) -> None:
    row = json.loads(a_finding().line()) | change
    with pytest.raises(DataError, match="here"):
        parse_finding(json.dumps(row), "here")


@given(name=st.sampled_from([name for name in COLUMNS if name != "key"]), cut=st.integers(1, 50))
def test_a_line_that_lacks_something_is_told(name: str, cut: int) -> None:
    row = json.loads(a_finding().line())
    del row[name]
    with pytest.raises(DataError):
        parse_finding(json.dumps(row), "here")
    with pytest.raises(DataError):
        parse_finding(a_finding().line()[:-cut], "here")


def test_a_line_of_before_there_were_keys_reads_as_one_without() -> None:
    row = json.loads(a_finding(key="app").line())
    assert parse_finding(json.dumps(row), "here").key == "app"
    del row["key"]
    assert parse_finding(json.dumps(row), "here") == a_finding(**row)


def test_verdict_and_outcome() -> None:
    assert a_finding().outcome == "flagged"
    assert a_finding(flagged=False).outcome == "passed"
    assert a_finding(flagged=False, error="scoring failed").outcome == "unscored"
