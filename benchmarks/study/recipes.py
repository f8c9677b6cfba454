"""CC++ (arXiv 2601.04603): loss x window x layers, the questions its text leaves open, and how deep to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from charter.training.probe import loudest
from charter.training.recipe import Loss, Recipe
from study.cells import Cell, Measured, Outcome, measured
from study.data import Study, fit, served

LOSSES: tuple[Loss, ...] = ("softmax", "bce", "cummax", "annealed")
SERVED = 16


def cells() -> Iterator[Cell]:
    """The grid of losses and windows on the chosen layers, more windows, the open questions, and layers on window means."""
    for loss in LOSSES:
        yield _token("recipe", f"{loss}-1", Recipe(loss, 1))
        yield _token("recipe", f"{loss}-16", Recipe(loss, SERVED))
        yield _token("recipe", f"{loss}-ema16", Recipe(loss, SERVED, "ema"))
    for window in (4, 64):
        yield _token("recipe", f"softmax-{window}", Recipe("softmax", window))
    yield _token("open", "weights-detached", Recipe("softmax", SERVED, detach=True))
    yield _token("open", "not-standardised", Recipe("softmax", SERVED, standardise=False))
    yield _token("open", "marks-counted", Recipe("softmax", SERVED), marks=True)
    yield _token("open", "first-token-dropped", Recipe("softmax", SERVED), skip=1)
    for name in ("all", "lower-two-thirds", "upper-of-those", "chosen"):
        yield Cell("layers", name, lambda study, name=name: _layers(study, name))
    for sixth in range(1, 7):
        yield Cell("layers", f"one-at-{sixth}-of-6", lambda study, sixth=sixth: _layers(study, sixth))


def _token(group: str, name: str, recipe: Recipe, **kept: Any) -> Cell:
    return Cell(group, name, lambda study: _fit_tokens(study, recipe, **kept))


def _fit_tokens(study: Study, recipe: Recipe, **kept: Any) -> Outcome:
    """Fit on single tokens of the chosen layers, and score as serving does: a moving average and its running maximum."""
    train = study.token_train
    tokens = study.tokens(train)
    score = served(recipe.window)
    heads, strength = fit(tokens.windows(**kept), train, recipe=recipe, score=score)
    sets: dict[str, Measured] = {}
    for rows in study.checks:
        own = study.tokens(rows).windows(**kept)
        sets |= measured(rows, score(own, len(rows.exchanges), *heads, slice(None))[:, 0])
    return Outcome(sets, len(train.exchanges), {"penalty": strength, "tokens": len(tokens.owner), "cut": tokens.cut})


def layer_set(study: Study, name: str | int) -> Sequence[int]:
    """The layers of a name, counted from 1; of a number, the single layer at that many sixths of the backbone."""
    blocks = len(study.wide.layers)
    if isinstance(name, int):
        return (max(1, round(blocks * name / 6)),)
    deepest = round(blocks * 2 / 3)
    known: dict[str, Sequence[int]] = {
        "all": range(1, blocks + 1), "lower-two-thirds": range(1, deepest + 1),
        "upper-of-those": range(round(deepest * 0.4) + 1, deepest + 1), "chosen": study.chosen,
    }  # fmt: skip
    return known[name]


def _layers(study: Study, name: str | int) -> Outcome:
    layers = layer_set(study, name)
    columns = study.columns(layers)
    heads, strength = fit(study.windows(study.train), study.train, columns)
    sets: dict[str, Measured] = {}
    for rows in study.checks:
        sets |= measured(rows, loudest(study.windows(rows), len(rows.exchanges), *heads, columns)[:, 0])
    return Outcome(sets, len(study.train.exchanges), {"penalty": strength, "layers": list(layers)})
