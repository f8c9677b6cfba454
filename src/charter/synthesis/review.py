"""The least certain items in a list for a person, `review.jsonl` beside the examples, and the walk through it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from charter.constitution import Clause, Constitution, load
from charter.errors import DataError
from charter.records import read_jsonl, write_text
from charter.synthesis.crossfit import Second
from charter.synthesis.decisions import Decision, apply, decide, read_decisions
from charter.synthesis.items import Item, Key, counterparts, key

LISTED = 200
FILE = "review.jsonl"


@dataclass(frozen=True, slots=True)
class Doubt:
    """A line of the list: an item and how certain its label is."""

    id: str
    """The item's parent."""
    clause: str
    """Empty for the pools."""
    side: str
    slice: str
    turns: list[dict[str, str]]
    """Roles and contents."""
    probability: float
    """Of its own label, by a scorer that never saw it."""
    nearest: str
    """The other clause that it is most like."""

    @property
    def key(self) -> Key:
        return self.id, self.clause or self.slice


def doubts(items: Sequence[Item], opinions: Mapping[Key, Second], decided: Iterable[Key] = ()) -> list[Doubt]:
    """The plain items with the lowest probability of their own label, at most `LISTED`, without those already decided."""
    done = {parent for parent, _ in decided}  # a flipped item is at home elsewhere by now
    found = [(opinions[key(i)], i) for i in items if i.family == "plain" and key(i) in opinions and i.parent not in done]
    found.sort(key=lambda pair: (round(pair[0].probability, 4), key(pair[1])))
    return [
        Doubt(i.parent, i.clause, i.side, i.slice, [asdict(t) for t in i.turns], round(opinion.probability, 4), opinion.nearest)
        for opinion, i in found[:LISTED]
    ]


def write_doubts(folder: Path, listed: Sequence[Doubt]) -> None:
    """Write the list beside the examples."""
    # in ASCII, because a prompt may hold a lone surrogate
    write_text(folder / FILE, "".join(json.dumps(asdict(doubt)) + "\n" for doubt in listed))


def read_doubts(folder: Path) -> list[Doubt]:
    """The list of a folder.

    Raises:
        DataError: there is none, or a line is malformed.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"{path}: there is no list to review; `charter synthesize` writes one beside the examples")
    out = []
    for number, row in read_jsonl(path):
        texts = all(isinstance(row.get(f), str) for f in ("id", "clause", "side", "slice", "nearest"))
        if not texts or not _turns(row.get("turns")) or not isinstance(row.get("probability"), int | float):
            raise DataError(f"{path}:{number}: this is no line of a review list; run `charter synthesize` into {folder} again")
        out.append(Doubt(**{f.name: row[f.name] for f in fields(Doubt)}))
    return out


class Walk:
    """Goes through the list of a folder, item by item. Every decision is on disk before the next item comes up."""

    def __init__(self, folder: Path) -> None:
        """Starts at the first item without a decision.

        Raises:
            DataError: the folder has no list, no constitution, or a malformed line.
        """
        if not (folder / "constitution.yaml").is_file():
            raise DataError(f"{folder}: holds no constitution.yaml; give the folder that `charter synthesize` wrote")
        self.folder = folder
        self.constitution: Constitution = load(folder / "constitution.yaml")
        self.listed = read_doubts(folder)
        self.decisions = read_decisions(folder)
        self._opposite = counterparts(self.constitution)
        self._clauses = {clause.id: clause for clause in self.constitution.clauses}
        self._made: list[tuple[int, bool]] = []
        self.place = self._next(0)

    @property
    def current(self) -> Doubt | None:
        """The item to decide on; None at the end."""
        return self.listed[self.place] if self.place < len(self.listed) else None

    def clause(self, doubt: Doubt) -> Clause | None:
        """The item's clause; None for a pool."""
        return self._clauses.get(doubt.clause)

    def counterpart(self, doubt: Doubt) -> Clause | None:
        """The clause that a flip would file it under; None where a flip isn't possible."""
        return self._opposite.get(doubt.clause)

    def choose(self, choice: Literal["keep", "flip", "drop"]) -> bool:
        """Decide on the current item and go on. False, and nothing done, where there is none or it can't be flipped."""
        doubt = self.current
        if doubt is None or (choice == "flip" and self.counterpart(doubt) is None):
            return False
        decision = Decision(*doubt.key, choice)
        decide(self.folder, decision)
        self.decisions[doubt.key] = decision
        self._go_on(True)
        return True

    def skip(self) -> None:
        """Go on without a decision."""
        if self.current is not None:
            self._go_on(False)

    def undo(self) -> bool:
        """Back to the item before, its decision taken back. False where this walk has not passed any."""
        if not self._made:
            return False
        self.place, decided = self._made.pop()
        if decided:
            where = self.listed[self.place].key
            decide(self.folder, Decision(*where, "undo"))
            del self.decisions[where]
        return True

    def finish(self) -> int:
        """Apply what was decided to the examples; returns the rows that went or changed."""
        return apply(self.folder, self.constitution) if self.decisions else 0

    def _go_on(self, decided: bool) -> None:
        self._made.append((self.place, decided))
        self.place = self._next(self.place + 1)

    def _next(self, place: int) -> int:
        while place < len(self.listed) and self.listed[place].key in self.decisions:
            place += 1
        return place


def _turns(value: object) -> bool:
    """Whether it is a list of at least one turn."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(t, dict) and all(isinstance(t.get(k), str) for k in ("role", "content")) for t in value)
