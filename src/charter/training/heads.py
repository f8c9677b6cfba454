"""One view's probe: the linear part, alone or as an ensemble of bootstrap members, and the hidden layer beside it, joined and rounded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charter.models.ensemble import Ensemble, Members
from charter.models.probe import Averaging, Hidden, Probe
from charter.records import View
from charter.training.activations import Windows
from charter.training.ensemble import fit_ensemble
from charter.training.hidden import fit_hidden, joined
from charter.training.probe import fit_probe
from charter.training.recipe import Loss, Recipe
from charter.training.table import Table

STEPS = 60
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit of one view's probe is told."""

    columns: NDArray[np.int64]
    """The inputs of the layers that were chosen."""
    strength: float
    loss: Loss
    units: int
    seed: int
    serving: int = 0
    """Members of an ensemble that score; 0 for one linear probe."""
    held_out: int = 0


@dataclass(frozen=True, slots=True)
class ViewHeads:
    """What a view's probe is made of, as it will be stored. `weights` [heads, inputs] are the members' mean where there is an ensemble."""

    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    hidden: Hidden | None
    ensemble: Ensemble | None


def fit_heads(windows: Windows, table: Table, fit: Fit, progress: Progress) -> ViewHeads:
    """Fit one view's probe on the window means of its table."""
    view, steps = table.view, iter(range(1, 100_000))
    total = fit.serving + fit.held_out if fit.serving else STEPS

    def step(_: int) -> None:
        progress(f"probe, {view} view", next(steps), total)

    layer = None
    if fit.units:
        layer = fit_hidden(
            windows,
            table.labels,
            fit.columns,
            fit.seed,
            fit.units,
            progress=lambda done, of: progress(f"hidden layer, {view} view", done, of),
        )
    recipe = Recipe(fit.loss)
    if not fit.serving:
        linear = fit_probe(windows, table.labels, fit.strength, STEPS, fit.columns, step, recipe)
        weights, biases, hidden = joined(linear, layer) if layer else (*linear, None)
        return ViewHeads(rounded(weights), biases, hidden, None)
    found = fit_ensemble(
        windows, table.labels, table.parents, fit.strength, fit.seed, fit.serving, fit.held_out, fit.columns, STEPS, recipe, step
    )
    hidden = None
    parts = []
    for members in (found.serving, found.held_out):
        w, b = members.weights, members.biases
        if layer:
            w, b, hidden = joined((w, b), layer)
        parts.append(Members(rounded(w), b, members.seeds))
    ensemble = Ensemble(*parts)
    return ViewHeads(rounded(parts[0].weights.mean(0)), parts[0].biases.mean(0), hidden, ensemble)


def probe_of(layers: tuple[int, ...], heads: Mapping[View, ViewHeads], averaging: Averaging) -> Probe:
    """The views' heads as one probe."""
    return Probe(
        layers,
        {view: own.weights for view, own in heads.items()},
        {view: own.biases for view, own in heads.items()},
        {view: own.hidden for view, own in heads.items() if own.hidden is not None},
        averaging,
        {view: own.ensemble for view, own in heads.items() if own.ensemble is not None},
    )


def heads_of(probe: Probe, view: View) -> ViewHeads:
    """One view's heads of a probe."""
    return ViewHeads(probe.weights[view], probe.biases[view], probe.hidden.get(view), probe.ensemble.get(view))


def rounded(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """As they will be stored, so that calibration sees what serving will."""
    return weights.astype(np.float16).astype(np.float32)
