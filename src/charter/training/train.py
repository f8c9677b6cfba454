"""Examples to scorers: read, screen, activations, probe with its hidden layer, perhaps a value head, mix, calibrate. `train` reads as that list.

Nothing here looks at the test split: the train split fits and chooses layers and penalty, the dev split mix and thresholds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.embedded import cache_folder
from charter.errors import DataError
from charter.models.backbone import Backbone
from charter.models.cascade import Cascade
from charter.models.probe import PAPERS, Averaging
from charter.models.screen import Screen
from charter.models.sentence import SentenceEncoder
from charter.models.trained import OperatingPoint, Trained
from charter.models.value_head import Tuned, ValueHead
from charter.models.whole import Whole
from charter.records import REPLY_VIEWS, View
from charter.statistics import Interval
from charter.training.activations import ActivationStore
from charter.training.heads import Fit, ViewHeads, fit_heads, heads_of, probe_of, rounded
from charter.training.hidden import UNITS
from charter.training.operating_point import operating_point
from charter.training.recipe import Loss
from charter.training.screen import fit_screen
from charter.training.search import choose
from charter.training.spread import spread
from charter.training.table import VIEWS, Table, tables, training_rows
from charter.training.value_head import Options as HeadOptions
from charter.training.value_head import fit_value_head
from charter.training.whole import fit_whole

Heads = tuple[NDArray[np.float32], NDArray[np.float32]]


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
    layers: tuple[int, ...] | None = None
    """Blocks that the probe reads, counted from 1; None: chosen among those of `depth`."""
    averaging: Averaging = PAPERS
    """Over which tokens the probe's logits are averaged, in training and in serving."""
    units: int = UNITS
    """Of the probe's hidden layer; 0 for the linear probe of the paper alone."""
    seed: int = 0
    """Of the hidden layer; the other fits are convex and draw nothing."""
    loss: Loss = "softmax"
    """Of the linear probe (`training.recipe`); the default is the paper's."""
    ensemble: int = 0
    """Bootstrap members of the linear probe, in place of the one; 0 for none."""
    held_out: int = 0
    """How many of them do not serve: an attack on the guard is judged by those."""
    cache: Path | None = None
    """Where activations are kept between runs; None for the user's cache."""
    balanced_budget: float | None = None
    """Of the second, more sensitive operating point; None for its default."""
    screen_first: bool = False
    """Run the backbone only on what the screen finds suspicious."""
    value_head: HeadOptions | None = None
    """Train a value head as well, which is asked about what screen and probe find suspicious. Its backbone and seed are this run's."""
    views: tuple[View, ...] = VIEWS
    """What is judged: "prompt", and a reply by "exchange", by "reply", or by both."""
    sentence_encoder: str | None = None
    """A second reader of prompts, a whole turn at a time (`models.sentence`): minilm, a folder, a hub id, or None."""
    encoder_epochs: int = 0
    """Passes over the prompts in which the sentence encoder is tuned to them; 0 leaves it as it is."""


ALL_VIEWS: tuple[View, ...] = ("prompt", *REPLY_VIEWS)
Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much is done and how much there is (0: unknown)."""


def train(
    data: Path | Sequence[Path],
    constitution: Constitution,
    options: Options,
    progress: Progress = lambda *_: None,
    before: Trained | None = None,
) -> Trained:
    """Train the screen, the probe and, if asked for, a value head for every view, and calibrate them to the budget.

    Args:
        data: an examples.parquet, the folder that holds it (and the rows of red-team rounds), or such files, examples first.
        before: an earlier result with the same options. A view whose rows have not changed since is taken from it, which gives
            the same result sooner: red-team rounds add prompts only.

    Raises:
        DataError: the examples can't be read, belong to another constitution, or are too few on one side; or the views are no set that can
            judge.
        BackboneError: the backbone can't be loaded or read.
        MissingExtra: what trains a value head is not installed.
    """
    views = check_views(options.views)
    check_members(options.ensemble, options.held_out)
    data_tables = tables(training_rows(data), constitution, views)
    chosen_on = data_tables["prompt", "train"]
    layers = chosen_on.digest(chosen_on.base)
    rows = {view: layers + data_tables[view, "train"].digest() + data_tables[view, "dev"].digest() for view in views}
    if options.value_head:  # one model for all views: neither stands while the other changes
        rows = dict.fromkeys(views, "".join(rows.values()))
    kept = frozenset(view for view in views if before and before.rows[view] == rows[view])
    screens = {
        view: fit_screen(data_tables[view, "train"].exchanges, data_tables[view, "train"].labels, view)
        for view in views
        if view not in kept
    }
    backbone, probes, apart, long = _probes(data_tables, options, progress, kept)
    if before:
        screens |= {view: (before.cascade.screen.weights[view], before.cascade.screen.biases[view]) for view in kept}
        apart |= {view: own for view, own in before.disagreement.items() if view in kept}
        probes |= {view: heads_of(before.cascade.probe, view) for view in kept}
    clauses = data_tables["prompt", "train"].clauses
    cascade = Cascade(clauses, backbone, probe_of(backbone.layers, probes, options.averaging), _screen(screens), dict.fromkeys(views, 0.5))
    head = before.head if before and kept else _fit_head(data_tables, options, progress)
    if head:
        cascade = cascade.with_head(ValueHead(head, options.backbone), dict.fromkeys(views, 0.5), cascade.escalate)
    if options.sentence_encoder:
        whole = before.cascade.whole if before and "prompt" in kept else None
        cascade = replace(cascade, whole=whole or _fit_whole(backbone, data_tables["prompt", "train"], options, progress))
    budgets, cache = (options.budget, options.near_miss_budget), (options.cache or cache_folder() / "activations") / "dev"
    gated = {number for number, wanted in enumerate((options.screen_first, head is not None)) if wanted}
    cascade.hurry()
    points = {
        view: before.points[view]
        if before and view in kept
        else operating_point(cascade, data_tables[view, "dev"], view, *budgets, gated, cache, progress)
        for view in views
    }
    counts = {f"{view} {split}": len(table.exchanges) for (view, split), table in data_tables.items()} | long
    return Trained(_served(cascade, points), points, *budgets, options.seed, counts, rows, options.balanced_budget, apart, head)


def check_views(asked: Sequence[str]) -> tuple[View, ...]:
    """The views by their names.

    Raises:
        DataError: a name is no view's, the prompt view is missing, none judges a reply, or one is named twice.
    """
    views = tuple(view for name in asked for view in ALL_VIEWS if view == name)
    if len(views) < len(asked) or "prompt" not in views or not set(views) & set(REPLY_VIEWS) or len(set(views)) < len(views):
        raise DataError(
            f"a guard needs the view prompt and one or both of {' and '.join(REPLY_VIEWS)}, each once, not {','.join(asked) or 'none'}"
        )
    return views


def check_members(ensemble: int, held_out: int) -> None:
    """Refuse an ensemble that can't be one.

    Raises:
        DataError: one member, or none left to serve.
    """
    if (ensemble and ensemble < 2) or (ensemble <= held_out and held_out):
        raise DataError(
            f"an ensemble of {ensemble} with {held_out} held out can't serve; take at least two members, and hold out fewer than all"
        )


def _served(cascade: Cascade, points: Mapping[View, OperatingPoint]) -> Cascade:
    """The cascade with the shares and escalation thresholds that were chosen."""
    mixes, thresholds = (
        [{view: getattr(point.gates[n], part) for view, point in points.items()} for n in range(len(cascade.stages))]
        for part in ("mix", "threshold")
    )
    head = cascade.head and replace(cascade.head, mix=mixes[-1], escalate=thresholds[-1])
    own, whole = points["prompt"].whole, cascade.whole
    if whole and own:
        whole = replace(whole, mix=own.mix, lead=own.lead, escalate=own.threshold)
    return replace(cascade, mix=mixes[0], escalate=thresholds[0], head=head, whole=whole)


def _fit_whole(backbone: Backbone, table: Table, options: Options, progress: Progress) -> Whole:
    """The sentence encoder's layer on the prompts; its vectors are kept in the cache."""
    assert options.sentence_encoder
    cache = (options.cache or cache_folder() / "activations") / "sentences"
    return fit_whole(
        SentenceEncoder(options.sentence_encoder), backbone.encoder, table, options.seed, cache, options.encoder_epochs, progress
    )


def _fit_head(data: Mapping[tuple[View, str], Table], options: Options, progress: Progress) -> Tuned | None:
    """A value head on the rows of all views, if it is wanted; a run that was killed goes on in the cache."""
    if options.value_head is None:
        return None
    own = replace(options.value_head, backbone=options.backbone, seed=options.seed)
    training = [data[view, "train"] for view in options.views]
    run = hashlib.sha256(repr((own, [table.digest() for table in training])).encode()).hexdigest()[:16]
    return fit_value_head(training, (options.cache or cache_folder()) / "value-head" / run, own, progress)


def _probes(
    data: dict[tuple[View, str], Table], options: Options, progress: Progress, kept: frozenset[View]
) -> tuple[Backbone, dict[View, ViewHeads], dict[View, dict[str, Interval]], dict[str, int]]:
    """Choose layers and penalty by the prompt view's overall head, then fit all heads of the views that are not kept.

    Returns also how far the members of an ensemble disagree on the dev split, and how many exchanges were read in overlapping pieces.
    """
    blocks = Backbone(options.backbone).layers
    wide = Backbone(options.backbone, options.layers or blocks[: max(1, round(len(blocks) * options.depth))])
    store = ActivationStore(options.cache or cache_folder() / "activations", wide, options.averaging.window)
    training = {view: data[view, "train"] for view in options.views if view == "prompt" or view not in kept}
    wide.hurry()
    total = sum(len(table.exchanges) for table in training.values())
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        progress("activations", done, total)

    windows = {view: store.windows(table.exchanges, view, step) for view, table in training.items()}
    picked = choose(windows["prompt"], training["prompt"], wide.layers, progress, fixed=options.layers is not None)
    columns = np.concatenate([np.arange(wide.width) + wide.layers.index(layer) * wide.width for layer in picked.layers])
    members = options.ensemble - options.held_out, options.held_out
    fit = Fit(columns, picked.strength, options.loss, options.units, options.seed, *members)
    fitted = {view: fit_heads(windows[view], table, fit, progress) for view, table in training.items() if view not in kept}
    apart = {}
    if options.ensemble:
        probe = probe_of(picked.layers, fitted, options.averaging)
        for view in fitted:
            dev = data[view, "dev"]
            apart[view] = spread(store.windows(dev.exchanges, view), dev.labels, probe, view, columns, options.seed)
    long = {f"{view} train, read in overlapping pieces": own.long for view, own in windows.items() if own.long}
    return Backbone(options.backbone, picked.layers), fitted, apart, long


def _screen(heads: dict[View, Heads]) -> Screen:
    return Screen({view: rounded(w) for view, (w, _) in heads.items()}, {view: b for view, (_, b) in heads.items()})
