"""Leave one family out: what the screen catches of a disguise that it never saw, beside what it catches having seen it.

Only the screen is fitted again, a logistic regression of seconds for each family; probe and value head would take the whole training
run again. So the figures speak of how far disguises carry over in the data, not of the guard as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import NoData
from charter.evaluation.metrics import share
from charter.models.screen import turn_features
from charter.models.segments import cut
from charter.records import Example, View
from charter.training.screen import fit_screen

LEAST = 10
"""Restricted dev and test rows of a family, below which it is left alone."""
PLAIN = "plain"
"""The family without a disguise; everything is made from it, so it is never left out."""


def leave_one_out(examples: Sequence[Example], budget: float) -> dict[str, Any]:
    """The `leave_one_family_out` part: by view and family, recall with the family in training and without it.

    Thresholds flag at most `budget` of the harmless dev rows of the other families; recall counts restricted rows of the family in
    the dev and test splits, whose parents training has not seen.

    Raises:
        NoData: no family has enough rows.
    """
    views: dict[View, list[Example]] = {
        "prompt": [e for e in examples if e.reply_restricted is None],
        "exchange": [e for e in examples if e.reply_restricted is not None],
    }
    found: dict[str, dict[str, Any]] = {view: _of_view(rows, view, budget) for view, rows in views.items()}
    if not any(found.values()):
        raise NoData(f"no family but {PLAIN!r} has {LEAST} restricted rows in the dev and test splits, so none can be left out")
    return {"scorer": "screen", "budget": budget, "least": LEAST, **found}


def _of_view(rows: Sequence[Example], view: View, budget: float) -> dict[str, Any]:
    train = [e for e in rows if e.split == "train"]
    dev = [e for e in rows if e.split == "dev" and not _restricted(e)]
    later = [e for e in rows if e.split != "train" and _restricted(e)]
    taught = {e.family for e in train if _restricted(e)} - {PLAIN}
    families = [f for f in sorted(taught) if sum(e.family == f for e in later) >= LEAST]
    if not families or not dev:
        return {}
    whole = _fit(train, view)
    out = {}
    for family in families:
        own = [e for e in later if e.family == family]
        others = [e for e in dev if e.family != family]
        rest = [e for e in train if e.family != family]
        if not others or len({_restricted(e) for e in rest}) < 2:
            continue
        with_it, without = (_recall(model, own, others, view, budget) for model in (whole, _fit(rest, view)))
        out[family] = {"n": len(own), "with": with_it, "without": without}
    return out


def _fit(rows: Sequence[Example], view: View) -> tuple[NDArray[np.float32], float]:
    labels = np.array([[_restricted(e)] for e in rows], np.float32)
    weights, biases = fit_screen([e.exchange for e in rows], labels, view)
    return weights[:, 0], float(biases[0])


def _recall(
    model: tuple[NDArray[np.float32], float], own: Sequence[Example], harmless: Sequence[Example], view: View, budget: float
) -> dict[str, float | int | None]:
    negatives = np.sort(_scores(model, harmless, view))[::-1]
    threshold = negatives[int(np.floor(budget * len(negatives) + 1e-9))]
    caught = _scores(model, own, view) > threshold
    parents = {e.parent: number for number, e in enumerate(own)}
    return share(caught, np.array([parents[e.parent] for e in own])).as_dict()


def _scores(model: tuple[NDArray[np.float32], float], rows: Sequence[Example], view: View) -> NDArray[np.float64]:
    """The logit at the end of the turn that the label speaks of."""
    weights, bias = model
    states = (turn_features(cut(e.exchange.reply or "" if view == "exchange" else e.exchange.prompt[-1].content)) for e in rows)
    return np.array([bias + sum(float(weights[bucket]) * value for bucket, value in state.items()) for state in states])


def _restricted(example: Example) -> bool:
    return bool(example.prompt_restricted if example.reply_restricted is None else example.reply_restricted)
