"""The rows behind the mitigation-aware statistics, read from JSONL:

{"kind": "attack", "harm": true, "own": 0.2, "suspicion": 0.35}       own: the attacker's guess of being noticed
{"kind": "honest", "suspicion": 0.1}                                  what the defender thinks of harmless work
{"kind": "answer", "item": "q1", "state": "locked", "right": false}   state: original, locked, unlocked
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import DataError, NoData
from charter.forecast.sabotage import Floats, Trials
from charter.records import read_jsonl

STATES = ("original", "locked", "unlocked")


@dataclass(frozen=True, slots=True)
class Log:
    """What a file of trials holds."""

    trials: Trials | None
    """None where it has no attack."""
    honest: Floats
    answers: NDArray[np.bool_] | None
    """Shape (3, items) in the order of STATES; None where there is none."""


def read_trials(path: Path) -> Log:
    """The rows of a file.

    Raises:
        DataError: it can't be read, or a row is off; names the line.
        NoData: it has neither attacks nor answers, or too few attacks.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of trials")
    attacks: list[tuple[bool, float, float]] = []
    honest: list[float] = []
    answers: dict[str, dict[str, bool]] = {}
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        kind = row.get("kind")
        if kind == "attack":
            attacks.append((_truth(row, "harm", where), _suspicion(row, "own", where), _suspicion(row, "suspicion", where)))
        elif kind == "honest":
            honest.append(_suspicion(row, "suspicion", where))
        elif kind == "answer":
            _answer(row, answers, where)
        else:
            raise DataError(f'{where}: "kind" must be attack, honest or answer, not {str(kind)[:40]!r}')
    if not attacks and not answers:
        raise NoData(f"{path}: holds neither attacks nor answers; see `charter forecast --help` for the rows")
    return Log(_trials(attacks), np.array(honest, np.float64), _table(answers, path))


def _trials(attacks: list[tuple[bool, float, float]]) -> Trials | None:
    if not attacks:
        return None
    harm, own, suspicion = zip(*attacks, strict=True)
    return Trials(np.array(harm, bool), np.array(own, np.float64), np.array(suspicion, np.float64))


def _table(answers: dict[str, dict[str, bool]], path: Path) -> NDArray[np.bool_] | None:
    for item, states in answers.items():
        if missing := [state for state in STATES if state not in states]:
            raise DataError(f"{path}: item {item!r} has no answer in state {missing[0]}; every item is asked in all three")
    return np.array([[states[state] for states in answers.values()] for state in STATES], bool) if answers else None


def _answer(row: dict[str, Any], answers: dict[str, dict[str, bool]], where: str) -> None:
    item, state = row.get("item"), row.get("state")
    if not isinstance(item, str) or state not in STATES:
        raise DataError(f'{where}: an answer needs an "item" and a "state" of {", ".join(STATES)}')
    if state in answers.setdefault(item, {}):
        raise DataError(f"{where}: item {item!r} is answered twice in state {state}")
    answers[item][state] = _truth(row, "right", where)


def _truth(row: dict[str, Any], key: str, where: str) -> bool:
    value = row.get(key)
    if not isinstance(value, bool):
        raise DataError(f"{where}: {key!r} must be true or false")
    return value


def _suspicion(row: dict[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"{where}: {key!r} must be a number from 0 to 1")
    return float(value)
