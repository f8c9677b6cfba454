"""Bootstrap members over the same activations: each is fitted on parents drawn with replacement, so kin stay together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from charter.errors import DataError
from charter.models.ensemble import Ensemble, Members
from charter.training.activations import Windows
from charter.training.probe import DEFAULT, fit_probe
from charter.training.recipe import Recipe

SERVING, HELD_OUT = 5, 2
TRIES = 20
"""Draws after which a member gives up on getting both classes."""


def fit_ensemble(
    windows: Windows,
    labels: NDArray[np.float32],
    parents: Sequence[str],
    strength: float,
    seed: int = 0,
    serving: int = SERVING,
    held_out: int = HELD_OUT,
    columns: slice | NDArray[np.int64] = slice(None),
    steps: int = 60,
    recipe: Recipe = DEFAULT,
    progress: Callable[[int], None] = lambda _: None,
) -> Ensemble:
    """Fit `serving` + `held_out` probes; the arguments are those of `fit_probe`.

    Args:
        parents: of each exchange; those of one parent are drawn together.
        seed: members draw with seed, seed + 1, ...

    Raises:
        DataError: an exchange class is so rare that resampling loses it.
    """
    fitted = []
    for number in range(serving + held_out):
        picked = draw(parents, labels, seed + number)
        fitted.append(fit_probe(windows.of(picked), labels[picked], strength, steps, columns, recipe=recipe))
        progress(1)
    weights, biases = (np.stack(part) for part in zip(*fitted, strict=True))
    seeds = tuple(range(seed, seed + serving + held_out))
    first, second = slice(0, serving), slice(serving, None)
    return Ensemble(*(Members(weights[part], biases[part], seeds[part]) for part in (first, second)))


def draw(parents: Sequence[str], labels: NDArray[np.float32], seed: int) -> NDArray[np.int64]:
    """Numbers of the exchanges of as many parents as there are, drawn with replacement.

    Raises:
        DataError: no draw of TRIES has both classes of the overall head.
    """
    _, of = np.unique(np.asarray(parents), return_inverse=True)
    members = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
    rng = np.random.default_rng(seed)
    for _ in range(TRIES):
        picked = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        if 0 < labels[picked, 0].sum() < len(picked):
            return picked
    raise DataError(f"no draw from {len(members)} parents has both classes; synthesize more examples of the rarer side")
