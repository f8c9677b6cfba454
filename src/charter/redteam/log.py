"""Every answer of the target as it comes, a line each: a killed run asks nothing twice and ends as an undisturbed one.

A line is found again by strategy, question and step, and counts only if the same turns were sent. What a kill cut off is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from charter.errors import DataError
from charter.records import Turn, write_text
from charter.redteam.scores import ScoreLog, digest
from charter.redteam.target import Answer, Turns

Key = tuple[str, str, int]
"""Strategy, question, number of the query within the two, from 0."""
SETTINGS, ATTEMPTS = "run.json", "attempts.jsonl"


class Log:
    """The answers of one run, in its folder."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Opens the log, or begins one.

        Args:
            settings: what the answers depend on besides the turns: the target, its model, the longest reply.

        Raises:
            DataError: the folder holds a run of other settings, or its log is damaged.
        """
        self.path = folder / ATTEMPTS
        _same(folder / SETTINGS, settings)
        self.scores = ScoreLog(folder)
        self._known = dict(_read(self.path))
        kept = [_line(key, entry) for key, entry in self._known.items()]
        write_text(self.path, "".join(kept))  # without the line that a kill cut off
        self._file = self.path.open("a", encoding="utf-8")

    def get(self, key: Key, turns: Turns) -> Answer | None:
        """The answer to the same query of an earlier run."""
        entry = self._known.get(key)
        return Answer(**entry["answer"]) if entry is not None and entry["sent"] == digest(turns) else None

    def put(self, key: Key, turns: Turns, answer: Answer) -> None:
        """Keep an answer; with the system when this returns, so that only a crash of the machine loses it."""
        self._known[key] = {"sent": digest(turns), "turns": [asdict(t) for t in turns], "answer": asdict(answer)}
        self._file.write(_line(key, self._known[key]))
        self._file.flush()

    def close(self, ended: Iterable[dict[str, Any]] | None = None) -> None:
        """Close the log. `ended`: all rows in order, judged, which replace it; queries that this run did not get to stay behind them."""
        self._file.close()
        if ended is None:
            return
        rows = list(ended)
        done = {(row["strategy"], row["question"], row["step"]) for row in rows}
        lines = [json.dumps({**row, **self._known[_key(row)]}, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
        lines += [_line(key, entry) for key, entry in sorted(self._known.items()) if key not in done]
        write_text(self.path, "".join(lines))


def turns_of(row: dict[str, Any]) -> Turns:
    """The turns of a row."""
    return tuple(Turn(**t) for t in row["turns"])


def _key(row: dict[str, Any]) -> Key:
    return row["strategy"], row["question"], row["step"]


def _line(key: Key, entry: dict[str, Any]) -> str:
    told = {"strategy": key[0], "question": key[1], "step": key[2], **entry}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n"


def _read(path: Path) -> Iterable[tuple[Key, dict[str, Any]]]:
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # the last one is empty, or was cut off
        try:
            row = json.loads(line)
            Answer(**row["answer"])
            turns_of(row)
            yield _key(row), {name: row[name] for name in ("sent", "turns", "answer")}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: the log of attempts is damaged ({error}); delete that line, or choose another --out"
            ) from error


def _same(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or find them as they are."""
    if not path.is_file():
        write_text(path, json.dumps(settings, ensure_ascii=False, indent=2) + "\n")
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}); choose another --out") from error
    other = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if other:
        was, now = before.get(other[0]), settings.get(other[0])
        raise DataError(
            f"{path.parent} holds a run with another {other[0]} ({was!r}, not {now!r}); go on with that one, or choose another --out"
        )
