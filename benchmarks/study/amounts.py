"""CC (arXiv 2501.18837), its ablations of the data: how much of it, how many permitted clauses, how many families."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from charter.records import split_place
from charter.synthesis.families import HELD_OUT, held
from charter.training.probe import loudest
from study.cells import Cell, Measured, Outcome, Skipped, measured
from study.data import Rows, Study, fit

PARTS = (16, 8, 4, 2, 1)
SHARES = (0.0, 0.25, 0.5, 1.0)


def cells() -> Iterator[Cell]:
    """Each a fit on window means of the chosen layers."""
    for part in PARTS:
        yield Cell("rows", f"1-of-{part:02}", lambda study, part=part: _amount(study, part))
    for share in SHARES:
        yield Cell("permitted", f"{round(100 * share):03}-percent", lambda study, share=share: _permitted(study, share))
    for share in SHARES:
        yield Cell("families", f"{round(100 * share):03}-percent", lambda study, share=share: _families(study, share))


def _amount(study: Study, part: int) -> Outcome:
    """The first rows: smaller amounts lie inside larger ones."""
    return _fit_on(study, np.arange(max(1, len(study.train.exchanges) // part)), study.checks)


def _permitted(study: Study, share: float) -> Outcome:
    """Some of the permitted clauses beside the ordinary traffic. The number of harmless rows is the same for every share."""
    train = study.train
    clauses = sorted({s for s in train.slices if s.startswith("permitted:")}, key=lambda s: split_place(f"permitted:{study.seed}:{s}"))
    known = set(clauses[: round(share * len(clauses))])
    ordinary = np.array([not s.startswith("permitted:") for s in train.slices])
    least = int((ordinary & ~train.labels).sum())
    allowed = ~train.labels & (ordinary | np.array([s in known for s in train.slices]))
    harmless = np.flatnonzero(allowed)[:least]
    return _fit_on(study, np.sort(np.append(np.flatnonzero(train.labels), harmless)), study.checks, {"clauses": len(known)})


def _families(study: Study, share: float) -> Outcome:
    """Some of the families among the training rows, what is missing made up by plain rows; measured on families never trained on."""
    disguised = study.rows("train, disguised", "train", False, study.sizes["disguised"], lambda e: e.family != "plain")
    plain = study.rows("train, plain", "train", False, study.sizes["train"], lambda e: e.family == "plain")
    names = sorted({part for f in disguised.families for part in f.split("+")}, key=lambda f: split_place(f"families:{study.seed}:{f}"))
    known = set(names[: round(share * len(names))])
    kept = np.flatnonzero([set(family.split("+")) <= known for family in disguised.families])
    rest = np.arange(max(0, len(plain.exchanges) - len(kept)))
    first, second = plain.of(rest), disguised.of(kept)
    train = Rows("train", first.exchanges + second.exchanges, np.append(first.labels, second.labels), first.parents + second.parents,
                 first.slices + second.slices, first.families + second.families)  # fmt: skip
    unseen = study.rows("held-out families", "test", False, study.sizes["held-out families"], lambda e: held(e.family, HELD_OUT))
    return _fit(study, train, [*study.checks, unseen], {"families": len(known), "disguised": len(kept)})


def _fit_on(study: Study, picked: NDArray[np.int64], checks: list[Rows], notes: dict[str, object] | None = None) -> Outcome:
    train = study.train.of(picked)
    if min(train.labels.sum(), (~train.labels).sum()) < 10:
        raise Skipped("fewer than 10 rows on one side; raise --limit")
    return _fit(study, train, checks, notes or {})


def _fit(study: Study, train: Rows, checks: list[Rows], notes: dict[str, object]) -> Outcome:
    columns = study.columns(study.chosen)
    heads, strength = fit(study.windows(train), train, columns)
    sets: dict[str, Measured] = {}
    for rows in checks:
        sets |= measured(rows, loudest(study.windows(rows), len(rows.exchanges), *heads, columns)[:, 0])
    return Outcome(sets, len(train.exchanges), {"penalty": strength, **notes})
