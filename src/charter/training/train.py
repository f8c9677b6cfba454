"""Examples to scorers: read, screen, activations, probe with its hidden layer, mix, calibrate. `train` reads as that list.

Nothing here looks at the test split: the train split fits and chooses layers and penalty, the dev split mix and thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.embedded import cache_folder
from charter.models.backbone import Backbone
from charter.models.cascade import Cascade
from charter.models.probe import Hidden, Probe
from charter.models.screen import Screen
from charter.models.trained import Trained
from charter.records import View
from charter.training.activations import ActivationStore, Windows
from charter.training.hidden import UNITS, fit_hidden, joined
from charter.training.operating_point import operating_point
from charter.training.probe import fit_probe
from charter.training.recipe import Loss, Recipe
from charter.training.screen import fit_screen
from charter.training.search import choose
from charter.training.table import Table, tables, training_rows

Heads = tuple[NDArray[np.float32], NDArray[np.float32]]
ProbeHeads = tuple[NDArray[np.float32], NDArray[np.float32], Hidden | None]
VIEWS: tuple[View, ...] = ("prompt", "exchange")


@dataclass(frozen=True, slots=True)
class Options:
    """What a training run may be told."""

    budget: float = 0.01
    """Share of ordinary harmless exchanges that may be refused, on every slice."""
    near_miss_budget: float = 0.1
    """The same for near misses, which are written to be confusable with a restricted clause."""
    backbone: str = "embedded"
    """embedded, a folder, or a hub id."""
    depth: float = 2 / 3
    """Share of the backbone's blocks that are run and read: deeper ones did not help (docs/decisions)."""
    units: int = UNITS
    """Of the probe's hidden layer; 0 for the linear probe of the paper alone."""
    seed: int = 0
    """Of the hidden layer; the other fits are convex and draw nothing."""
    loss: Loss = "softmax"
    """Of the linear probe (`training.recipe`); the default is the paper's."""
    cache: Path | None = None
    """Where activations are kept between runs; None for the user's cache."""


Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much is done and how much there is (0: unknown)."""


def train(
    data: Path | Sequence[Path],
    constitution: Constitution,
    options: Options,
    progress: Progress = lambda *_: None,
    before: Trained | None = None,
) -> Trained:
    """Train the screen and the probe for both views and calibrate them to the budget.

    Args:
        data: an examples.parquet, the folder that holds it (and the rows of red-team rounds), or such files, examples first.
        before: an earlier result with the same options. A view whose rows have not changed since is taken from it, which gives
            the same result sooner: red-team rounds add prompts only.

    Raises:
        DataError: the examples can't be read, belong to another constitution, or are too few on one side.
        BackboneError: the backbone can't be loaded or read.
    """
    data_tables = tables(training_rows(data), constitution)
    chosen_on = data_tables["prompt", "train"]
    layers = chosen_on.digest(chosen_on.base)
    rows = {view: layers + data_tables[view, "train"].digest() + data_tables[view, "dev"].digest() for view in VIEWS}
    kept = frozenset(view for view in VIEWS if before and before.rows[view] == rows[view])
    screens = {
        view: fit_screen(data_tables[view, "train"].exchanges, data_tables[view, "train"].labels, view)
        for view in VIEWS
        if view not in kept
    }
    backbone, probes = _probes(data_tables, options, progress, kept)
    if before:
        screens |= {view: (before.cascade.screen.weights[view], before.cascade.screen.biases[view]) for view in kept}
        old = before.cascade.probe
        probes |= {view: (old.weights[view], old.biases[view], old.hidden.get(view)) for view in kept}
    clauses = data_tables["prompt", "train"].clauses
    unmixed = Cascade(clauses, backbone, _probe(backbone, probes), _screen(screens), dict.fromkeys(VIEWS, 0.5))
    budgets, cache = (options.budget, options.near_miss_budget), (options.cache or cache_folder() / "activations") / "dev"
    backbone.hurry()
    points = {
        view: before.points[view]
        if before and view in kept
        else operating_point(unmixed, data_tables[view, "dev"], view, *budgets, cache, progress)
        for view in VIEWS
    }
    cascade = replace(unmixed, mix={view: point.mix for view, point in points.items()})
    counts = {f"{view} {split}": len(table.exchanges) for (view, split), table in data_tables.items()}
    return Trained(cascade, points, *budgets, options.seed, counts, rows)


def _probes(
    data: dict[tuple[View, str], Table], options: Options, progress: Progress, kept: frozenset[View]
) -> tuple[Backbone, dict[View, ProbeHeads]]:
    """Choose layers and penalty by the prompt view's overall head, then fit all heads of the views that are not kept."""
    blocks = Backbone(options.backbone).layers
    wide = Backbone(options.backbone, blocks[: max(1, round(len(blocks) * options.depth))])
    store = ActivationStore(options.cache or cache_folder() / "activations", wide)
    training = {view: data[view, "train"] for view in VIEWS if view == "prompt" or view not in kept}
    wide.hurry()
    total = sum(len(table.exchanges) for table in training.values())
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress("activations", done, total)

    windows = {view: store.windows(table.exchanges, view, step) for view, table in training.items()}
    picked = choose(windows["prompt"], training["prompt"], wide.layers, progress)
    columns = np.concatenate([np.arange(wide.width) + wide.layers.index(layer) * wide.width for layer in picked.layers])
    fitted = {
        view: _fitted(view, windows[view], table.labels, columns, picked.strength, options, progress)
        for view, table in training.items()
        if view not in kept
    }
    return Backbone(options.backbone, picked.layers), fitted


def _fitted(
    view: View,
    windows: Windows,
    labels: NDArray[np.float32],
    columns: NDArray[np.int64],
    strength: float,
    options: Options,
    progress: Progress,
) -> ProbeHeads:
    steps = iter(range(1, 1_000))
    linear = fit_probe(
        windows,
        labels,
        strength,
        columns=columns,
        recipe=Recipe(options.loss),
        progress=lambda _: progress(f"probe, {view} view", next(steps), 60),
    )
    if not options.units:
        return _rounded(linear[0]), linear[1], None
    hidden = fit_hidden(
        windows, labels, columns, options.seed, options.units, lambda done, total: progress(f"hidden layer, {view} view", done, total)
    )
    weights, biases, layer = joined(linear, hidden)
    return _rounded(weights), biases, layer


def _probe(backbone: Backbone, heads: dict[View, ProbeHeads]) -> Probe:
    hidden = {view: layer for view, (_, _, layer) in heads.items() if layer is not None}
    return Probe(backbone.layers, {view: w for view, (w, _, _) in heads.items()}, {view: b for view, (_, b, _) in heads.items()}, hidden)


def _rounded(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """As they will be stored, so that calibration sees what serving will."""
    return weights.astype(np.float16).astype(np.float32)


def _screen(heads: dict[View, Heads]) -> Screen:
    return Screen({view: _rounded(w) for view, (w, _) in heads.items()}, {view: b for view, (_, b) in heads.items()})
