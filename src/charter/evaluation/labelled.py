"""Labelled requests of one restricted clause and of its counterpart, with who is kin of whom: what `charter teach` learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import numpy as np
from numpy.typing import NDArray

from charter.constitution import Clause, Constitution
from charter.errors import ConstitutionError, DataError
from charter.evaluation.datasets import LABELS
from charter.records import Exchange, parse_turns, read_jsonl, split_place
from charter.synthesis.items import Item, written_for
from charter.synthesis.kin import kin
from charter.synthesis.recorded import RecordedTeacher

LEAST = 10
"""Requests of either side, in either half."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Requests, all of them judged by their last turn."""

    exchanges: tuple[Exchange, ...]
    restricted: NDArray[np.bool_]
    kin: NDArray[np.int64]
    """A number for each: near-twins and rows of one parent share it, and so a half."""

    def of(self, rows: NDArray[np.int64]) -> Labelled:
        """These rows alone."""
        return Labelled(tuple(self.exchanges[n] for n in rows), self.restricted[rows], self.kin[rows])


def pair(constitution: Constitution, name: str) -> tuple[Clause, Clause | None]:
    """A restricted clause and its counterpart.

    Raises:
        ConstitutionError: there is no such restricted clause.
    """
    found = next((clause for clause in constitution.restricted if clause.id == name), None)
    if found is None:
        known = ", ".join(clause.id for clause in constitution.restricted)
        raise ConstitutionError(f"{constitution.name} has no restricted clause {name!r}; its restricted clauses are {known}")
    return found, constitution[found.counterpart] if found.counterpart else None


def recorded(constitution: Constitution, clause: Clause, counterpart: Clause | None, limit: int) -> Labelled:
    """The recorded requests of a shipped constitution's clause and of its counterpart, at most `limit` of each.

    Raises:
        TeacherError: the constitution has no recorded generations.
        DataError: the clause has no counterpart, so nothing recorded lies on the other side.
    """
    if counterpart is None:
        raise DataError(
            f"the clause {clause.id} names no counterpart, whose requests would be the other side; give labelled rows by --examples"
        )
    teacher = RecordedTeacher(constitution)
    items: list[Item] = []
    for side in (clause, counterpart):
        items += anyio.run(partial(teacher.prompts, side, (), limit)).kept
    return _labelled(items, [item.clause == clause.id for item in items], [None] * len(items))


def from_file(path: Path, clause: Clause, counterpart: Clause | None) -> Labelled:
    """Rows {"messages", "label": harmful, safe or benign}; rows with the same "parent" are kin, whatever else they say.

    Raises:
        DataError: a row can't be read; names it.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of labelled rows")
    items, labels, parents = [], [], []
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        turns, label, parent = parse_turns(row.get("messages"), where), row.get("label"), row.get("parent")
        if turns[-1].role == "assistant":
            raise DataError(f"{where}: ends in a reply; `charter teach` compares requests, so leave the reply out")
        if label not in LABELS:
            raise DataError(f"{where}: the row needs a `label`, one of {', '.join(LABELS)}")
        if parent is not None and not isinstance(parent, str):
            raise DataError(f"{where}: `parent` must be a word")
        side = clause if LABELS[label] or counterpart is None else counterpart
        items.append(written_for(side, turns, "labelled"))
        labels.append(LABELS[label])
        parents.append(parent)
    return _labelled(items, labels, parents)


def halves(data: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """A pool to label from and a test half, kin together.

    Raises:
        DataError: a half has too few requests of a side.
    """
    test = np.array([split_place(f"teach:{seed}:{number}") < 0.5 for number in data.kin], bool)
    parts = data.of(np.flatnonzero(~test)), data.of(np.flatnonzero(test))
    for part, what in zip(parts, ("to label from", "to test on"), strict=True):
        for side, n in (("restricted", int(part.restricted.sum())), ("permitted", int((~part.restricted).sum()))):
            if n < LEAST:
                raise DataError(f"only {n} {side} requests are left {what}; at least {LEAST} are needed: give more labelled rows")
    return parts


def _labelled(items: Sequence[Item], labels: Sequence[bool], parents: Sequence[str | None]) -> Labelled:
    """The items with their kin: near-twins by `synthesis.kin`, and those of one told parent. Of equal texts the first stays."""
    rows: dict[str, int] = {}
    for number, item in enumerate(items):
        at = rows.setdefault(item.parent, number)
        if labels[at] != labels[number]:
            raise DataError(f"the request {item.text[:60]!r} is labelled both ways; mend one of the two rows")
    groups = [item.group for item in kin([items[n] for n in rows.values()])[0]] if rows else []
    own = [[f"kin {group}", *([f"parent {told}"] if (told := parents[n]) else [])] for n, group in zip(rows.values(), groups, strict=True)]
    place = {key: n for n, key in enumerate(dict.fromkeys(key for keys in own for key in keys))}
    exchanges = tuple(Exchange(str(n), items[n].turns) for n in rows.values())
    return Labelled(
        exchanges, np.array([labels[n] for n in rows.values()], bool), _components([[place[key] for key in keys] for keys in own])
    )


def _components(keys: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """A number for each row: the same for rows that share a key, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, edges = len(keys), [(row, key) for row, own in enumerate(keys) for key in own]
    size = n + 1 + max((key for _, key in edges), default=0)
    at = [row for row, _ in edges], [n + key for _, key in edges]
    return np.asarray(connected_components(coo_array((np.ones(len(edges)), at), (size, size)), directed=False)[1][:n], np.int64)
