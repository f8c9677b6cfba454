from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from charter.errors import DataError, NoData
from charter.forecast.trials import read_trials

ATTACK = {"kind": "attack", "harm": True, "own": 0.2, "suspicion": 0.35}
ANSWER = {"kind": "answer", "item": "q", "state": "locked", "right": False}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "trials.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_three_kinds_of_rows_are_told_apart(tmp_path: Path) -> None:
    states = [{**ANSWER, "state": state, "right": state != "locked"} for state in ("unlocked", "original", "locked")]
    log = read_trials(written(tmp_path, ATTACK, {"kind": "honest", "suspicion": 0.1}, *states))
    assert log.trials is not None
    assert log.answers is not None
    assert (log.trials.harm.tolist(), log.trials.own.tolist(), log.trials.suspicion.tolist()) == ([True], [0.2], [0.35])
    assert log.honest.tolist() == [0.1]
    assert log.answers.tolist() == [[True], [False], [True]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ATTACK, "harm": 1}, "'harm' must be true or false"),
        ({**ATTACK, "own": None}, "'own' must be a number"),
        ({**ATTACK, "suspicion": 1.5}, "'suspicion' must be a number from 0 to 1"),
        ({"kind": "honest", "suspicion": True}, "from 0 to 1"),
        ({"kind": "other"}, "must be attack, honest or answer"),
        ({}, "must be attack, honest or answer"),
        ({**ANSWER, "state": "hidden"}, "original, locked, unlocked"),
        ({**ANSWER, "item": 3}, '"item"'),
        ({**ANSWER, "right": "yes"}, "'right' must be true"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"trials.jsonl:2: .*{said}"):
        read_trials(written(tmp_path, ATTACK, row))


def test_items_are_answered_once_in_every_state(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice in state locked"):
        read_trials(written(tmp_path, ANSWER, ANSWER))
    with pytest.raises(DataError, match="no answer in state original"):
        read_trials(written(tmp_path, ANSWER))


def test_nothing_to_count_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NoData, match="neither attacks nor answers"):
        read_trials(written(tmp_path, {"kind": "honest", "suspicion": 0.1}))
    with pytest.raises(DataError, match="no such file"):
        read_trials(tmp_path / "none.jsonl")
