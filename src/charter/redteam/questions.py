"""Target questions: what an attack wants answered. From a file, or the restricted clauses' own examples, spread over the clauses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from charter.constitution import Constitution
from charter.errors import DataError, NoData
from charter.records import Turn, parse_turns, read_jsonl


@dataclass(frozen=True, slots=True)
class Question:
    """A restricted request as anybody would put it."""

    id: str
    turns: tuple[Turn, ...]
    """Ends with the user."""
    clause: str = ""
    """The restricted clause that it breaks, where that is known."""

    @property
    def text(self) -> str:
        return self.turns[-1].content


def of_constitution(constitution: Constitution, limit: int, seed: int) -> list[Question]:
    """At most `limit` examples of the restricted clauses: one of each clause, then a second of each, until there are enough.

    Raises:
        NoData: no restricted clause has an example.
    """
    rng, out = Random(f"{seed}:questions"), list[Question]()
    examples = {c.id: rng.sample(c.examples, len(c.examples)) for c in constitution.restricted}
    for place in range(max(map(len, examples.values()), default=0)):
        for clause, texts in examples.items():
            if place < len(texts):
                out.append(Question(f"{clause}:{place}", (Turn("user", texts[place]),), clause))
    if not out:
        raise NoData(
            f"{constitution.name}: no restricted clause has an example, so there is nothing to ask for; name a file with --questions"
        )
    return out[:limit]


def of_file(file: Path, limit: int | None = None) -> list[Question]:
    """Rows {"prompt"} or {"messages"} that end with the user; "id" and "clause" (or "category") where known.

    Raises:
        DataError: a row is off or an id stands twice; names the file and line.
        NoData: the file holds none.
    """
    if not file.is_file():
        raise DataError(f"{file}: there is no such file of questions")
    out: dict[str, Question] = {}
    for number, row in read_jsonl(file):
        where, key = f"{file}:{number}", str(row.get("id", number))
        if key in out:
            raise DataError(f"{where}: the id {key!r} stands twice; give every question its own")
        out[key] = Question(key, asked(row, where), str(row.get("clause") or row.get("category") or ""))
    if not out:
        raise NoData(f"{file}: holds no questions, so there is nothing to attack with")
    return list(out.values())[:limit]


def asked(row: dict[str, object], where: str) -> tuple[Turn, ...]:
    """The turns of a row up to its last request.

    Raises:
        DataError: it holds none.
    """
    if isinstance(row.get("prompt"), str) and row["prompt"]:
        return (Turn("user", str(row["prompt"])),)
    turns: Sequence[Turn] = parse_turns(row.get("messages"), where)
    while turns and turns[-1].role != "user":
        turns = turns[:-1]
    if not turns:
        raise DataError(f"{where}: the row asks for nothing; it needs a `prompt`, or `messages` with one of the user's")
    return tuple(turns)


def clauses(questions: Iterable[Question]) -> list[str]:
    """The clauses that the questions come from, in order."""
    return list(dict.fromkeys(q.clause for q in questions if q.clause))
