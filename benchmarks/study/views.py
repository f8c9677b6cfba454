"""CC and CC++: what sees the prompt, what sees the reply, what sees both. All judge the reply's label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charter.records import Exchange, View
from charter.training.probe import loudest
from study.cells import Cell, Outcome, measured
from study.data import Rows, Study, fit

Seen = Literal["input", "output", "exchange"]


def cells() -> Iterator[Cell]:
    """Each classifier alone, and input and output together, where the louder one counts."""
    seen: tuple[Seen, ...] = ("input", "output", "exchange")
    for one in seen:
        yield Cell("views", one, lambda study, one=one: _outcome(study, scores(study, one)))
    yield Cell("views", "input-and-output", lambda study: _outcome(study, np.maximum(scores(study, "input"), scores(study, "output"))))


def part(rows: Rows, seen: Seen) -> tuple[Rows, View]:
    """What a classifier is shown, and the view in which it is read. A reply alone is an exchange of one turn."""
    if seen == "exchange":
        return rows, "exchange"
    if seen == "input":
        return replace(rows, exchanges=[Exchange(e.id, e.prompt) for e in rows.exchanges]), "prompt"
    return replace(rows, exchanges=[Exchange(e.id, e.turns[-1:]) for e in rows.exchanges]), "exchange"


@lru_cache(maxsize=8)
def _rows(study: Study) -> tuple[Rows, Rows]:
    train = study.rows("replies, train", "train", True, study.sizes["reply train"])
    return train, study.rows("replies", "dev", True, study.sizes["reply dev"])


@lru_cache(maxsize=8)
def scores(study: Study, seen: Seen) -> NDArray[np.float32]:
    """Logits of the dev rows by a classifier that is shown this part, in training too."""
    (train, view), (dev, _) = (part(rows, seen) for rows in _rows(study))
    heads, _ = fit(study.windows(train, view, study.narrow), train)
    return loudest(study.windows(dev, view, study.narrow), len(dev.exchanges), *heads, slice(None))[:, 0]


def _outcome(study: Study, found: NDArray[np.float32]) -> Outcome:
    train, dev = _rows(study)
    return Outcome(measured(dev, found), len(train.exchanges))
