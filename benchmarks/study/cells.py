"""A cell of the study: one fit, measured. Kept as a JSON file of its own, so that a killed run repeats one cell at most."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.records import write_text
from charter.statistics import Interval, auroc, bootstrap, recall_at_fpr
from study.data import Rows, Study

VERSION = 1
"""Of what a cell measures; a file of another version is made anew."""
RATE = 0.01
DRAWS = 400


class Skipped(Exception):
    """A cell that can't be run here; its message says what is missing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores of the rows of one set. Rows of a group (a prompt and what was made from it) are resampled together."""

    labels: NDArray[np.bool_]
    groups: NDArray[np.int64]
    scores: NDArray[np.float64]

    def figures(self, seed: int) -> dict[str, dict[str, float | int | None]]:
        """AUROC and recall at 1 % false positives, with bootstrap intervals."""
        return {name: bootstrap(figure, self.labels, self.scores, seed, DRAWS, self.groups).as_dict() for name, figure in FIGURES.items()}


FIGURES: dict[str, Callable[[Any, Any], float]] = {"auroc": auroc, "recall": lambda y, s: recall_at_fpr(y, s, RATE)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell found."""

    sets: dict[str, Measured]
    n_train: int
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of a table."""

    group: str
    name: str
    run: Callable[[Study], Outcome]

    @property
    def id(self) -> str:
        return f"{self.group}/{self.name}"


def measured(rows: Rows, scores: NDArray[np.floating]) -> dict[str, Measured]:
    """One set and, where it has them, its near misses: restricted rows against those of permitted clauses."""
    _, groups = np.unique(np.asarray(rows.parents), return_inverse=True)
    out = {rows.name: Measured(rows.labels, groups, np.asarray(scores, np.float64))}
    near = rows.labels | np.array([s.startswith("permitted:") for s in rows.slices], bool)
    if (near & ~rows.labels).sum() >= 20 and not near.all():
        out["near misses"] = Measured(rows.labels[near], groups[near], np.asarray(scores, np.float64)[near])
    return out


def settle(cell: Cell, study: Study, folder: Path) -> tuple[dict[str, Any], bool]:
    """The cell's record, and whether it was there already.

    Raises:
        Skipped: it needs something that is not installed.
    """
    file = folder / cell.group / f"{cell.name}.json"
    key = hashlib.sha256(repr((VERSION, study.key, cell.id)).encode()).hexdigest()[:16]
    if file.is_file() and (record := json.loads(file.read_text()))["key"] == key:
        return record, True
    begun = time.perf_counter()
    outcome = cell.run(study)
    record = {
        "key": key, "group": cell.group, "name": cell.name, "seed": study.seed, "n_train": outcome.n_train, "notes": outcome.notes,
        "seconds": round(time.perf_counter() - begun, 1), "told": study.told,
        "sets": {
            name: {
                "n": len(own.labels), "positives": int(own.labels.sum()), "groups": len(set(own.groups.tolist())),
                "figures": own.figures(study.seed),
                # Scores without texts, so that differences between cells can be given with intervals by the same rows.
                "rows": [own.labels.astype(int).tolist(), own.groups.tolist(), [float(f"{s:.5g}") for s in own.scores]],
            }
            for name, own in outcome.sets.items()
        },
    }  # fmt: skip
    write_text(file, json.dumps(record))
    return record, False


def difference(better: dict[str, Any], worse: dict[str, Any], name: str, figure: str, seed: int) -> Interval | None:
    """One cell's figure less another's on the same rows of a set, with an interval; None where they measured different rows."""
    one, two = (cell["sets"].get(name) for cell in (better, worse))
    if not one or not two or one["rows"][:2] != two["rows"][:2]:
        return None
    labels, groups, first = one["rows"]
    both = np.stack([first, two["rows"][2]], 1)
    own = FIGURES[figure]
    return bootstrap(lambda y, s: own(y, s[:, 0]) - own(y, s[:, 1]), labels, both, seed, DRAWS, groups)
