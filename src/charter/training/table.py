"""Examples as training tables: the exchanges of one view and split, and a label for each head."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.errors import DataError
from charter.models.calibrate import NEAR_MISS
from charter.records import Example, Exchange, View, read_examples

LEAST_POSITIVES = 10
"""Training examples below which a clause gets no head of its own; the overall head still learns from them."""
LEAST_A_SIDE = 50
VIEWS: tuple[View, ...] = ("prompt", "exchange")
"""Of a guard, unless it is asked for others."""
ROUND_TEACHER = "redteam:"
"""Begins the `teacher` of rows that red-team rounds wrote."""
_ROUND = re.compile(r"redteam-([1-9][0-9]*)\.parquet")


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one view and split."""

    view: View
    clauses: tuple[str, ...]
    """Restricted clauses with a head, in order."""
    exchanges: list[Exchange]
    labels: NDArray[np.float32]
    """[rows, 1 + clauses]: restricted at all, then by clause."""
    slices: list[str]
    parents: list[str]
    ordinary: frozenset[str]
    """Slices of permitted clauses that are nobody's counterpart: ordinary traffic, not near misses."""
    base: int
    """Rows that synthesis wrote: the first ones. Those after them come from red-team rounds."""

    @property
    def is_ordinary(self) -> NDArray[np.bool_]:
        """[rows]: harmless, and no near miss."""
        near = [name.startswith(NEAR_MISS) and name not in self.ordinary for name in self.slices]
        return np.asarray((self.labels[:, 0] < 0.5) & ~np.array(near, bool))

    def digest(self, rows: int | None = None) -> str:
        """Tells whether two tables hold the same rows with the same labels; of the first `rows`, where a number is given."""
        told = hashlib.sha256(repr((self.view, self.clauses, [e.id for e in self.exchanges[:rows]], self.slices[:rows])).encode())
        told.update(self.labels[:rows].tobytes())
        return told.hexdigest()


def training_rows(data: Path | Sequence[Path]) -> Iterator[Example]:
    """The examples, and after them the rows that red-team rounds added to them.

    Args:
        data: the folder that holds examples.parquet and redteam-<round>.parquet; one file of examples; or several, examples first.

    Raises:
        DataError: a file can't be read, or a round's row was made from a prompt that the examples don't have in their train split.
    """
    first, *more = _files(data) if isinstance(data, Path) else data
    known: set[str] = set()
    for example in read_examples(first):
        if example.split == "train":
            known.add(example.parent)
        yield example
    for file in more:
        for example in read_examples(file):
            if example.split == "train" and example.parent not in known:
                raise DataError(
                    f"{file}: example {example.id} was made from a prompt that {first.name} no longer has in its train split; "
                    "run `charter build` with --rounds again, or remove the file"
                )
            yield example


def _files(data: Path) -> list[Path]:
    if not data.is_dir():
        return [data]
    rounds = sorted((int(found[1]), file) for file in data.iterdir() if (found := _ROUND.fullmatch(file.name)))
    return [data / "examples.parquet", *(file for _, file in rounds)]


def tables(examples: Iterable[Example], constitution: Constitution, views: Sequence[View] = VIEWS) -> dict[tuple[View, str], Table]:
    """Tables for the views and the splits train and dev.

    Rows without a reply teach the prompt view; rows with one the exchange view, and the reply view their replies by themselves.

    Raises:
        DataError: the examples come from another constitution, or too few are on one side.
    """
    known = {c.id: c.hash for c in constitution.clauses}
    rows: dict[tuple[View, str], list[Example]] = {(v, s): [] for v in views for s in ("train", "dev")}
    for example in examples:
        if example.clause and known.get(example.clause) != example.clause_hash:
            again = "charter build` with --rounds" if example.teacher.startswith(ROUND_TEACHER) else "charter synthesize`"
            raise DataError(
                f"example {example.id}: was made for another text of clause {example.clause!r} than {constitution.name} has now; "
                f"run `{again} again, only what the change touches is made anew"
            )
        if example.split != "test":
            for view in views:
                if (view == "prompt") == (example.reply_restricted is None):
                    rows[view, example.split].append(example)
    counts = {c.id: sum(_restricted(e) and e.clause == c.id for e in rows["prompt", "train"]) for c in constitution.restricted}
    clauses = tuple(name for name, n in counts.items() if n >= LEAST_POSITIVES)
    near = {c.counterpart for c in constitution.restricted}
    ordinary = frozenset(f"permitted:{c.id}" for c in constitution.permitted if c.id not in near)
    out = {key: _table(key[0], clauses, part, ordinary) for key, part in rows.items()}
    for (view, split), table in out.items():
        _check(view, split, table)
    return out


def _table(view: View, clauses: tuple[str, ...], examples: list[Example], ordinary: frozenset[str]) -> Table:
    labels = np.zeros((len(examples), 1 + len(clauses)), np.float32)
    for row, example in enumerate(examples):
        if _restricted(example):
            labels[row, 0] = 1
            if example.clause in clauses:
                labels[row, 1 + clauses.index(example.clause)] = 1
    exchanges = [Exchange(e.id, e.exchange.seen(view)) if view == "reply" else e.exchange for e in examples]
    slices, parents = [e.slice for e in examples], [e.parent for e in examples]
    base = sum(not e.teacher.startswith(ROUND_TEACHER) for e in examples)
    return Table(view, clauses, exchanges, labels, slices, parents, ordinary, base)


def _restricted(example: Example) -> bool:
    """Whether the part that the example's view judges is restricted."""
    return bool(example.prompt_restricted if example.reply_restricted is None else example.reply_restricted)


def _check(view: View, split: str, table: Table) -> None:
    least = LEAST_A_SIDE if split == "train" else 5
    positives = int(table.labels[:, 0].sum())
    for side, n in (("restricted", positives), ("harmless", len(table.labels) - positives)):
        if n < least:
            raise DataError(
                f"only {n} {side} examples in the {split} split of the {view} view; at least {least} are needed: synthesize more"
            )
