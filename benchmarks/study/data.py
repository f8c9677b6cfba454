"""What the cells share: rows drawn by a hash of their parents, their activations, and a fit that chooses its penalty.

The train split fits, the dev split measures (the test split's held-out families too, where the question is about them), and the
development benchmarks only measure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.errors import DataError
from charter.evaluation.datasets import load_folder, sample
from charter.models.backbone import Backbone
from charter.records import Example, Exchange, View, read_examples, split_place
from charter.statistics import auroc
from charter.training.activations import ActivationStore, Windows
from charter.training.probe import fit_probe, loudest
from charter.training.recipe import Recipe
from charter.training.search import HELD_BACK, STRENGTHS
from charter.training.tokens import Tokens, served_maximum, token_states

SIZES = {"train": 4_000, "token train": 2_000, "dev": 1_000, "public": 80, "reply train": 900, "reply dev": 450, "disguised": 800,
         "held-out families": 400}  # fmt: skip
"""Rows at most: about 40 minutes on two cores. `public` is by set."""
PUBLIC = ("xstest", "jbb_behaviors", "aegis_test", "openai_moderation", "mmlu_other", "self_instruct_user", "mt_bench")
"""Four labelled sets and three of ordinary requests, pooled."""
SEARCH_STEPS, STEPS = 12, 50
LEAST = 20
Heads = tuple[NDArray[np.float32], NDArray[np.float32]]
Score = Callable[[Windows, int, NDArray[np.float32], NDArray[np.float32], slice | NDArray[np.int64]], NDArray[np.float32]]
"""Windows, number of exchanges, weights, bias and columns to a score of each exchange, [n, heads]."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Labelled exchanges."""

    name: str
    exchanges: list[Exchange]
    labels: NDArray[np.bool_]
    parents: list[str]
    slices: list[str]
    families: list[str]

    def of(self, picked: NDArray[np.int64]) -> Rows:
        """Some of them, in that order."""
        lists = ([own[n] for n in picked] for own in (self.exchanges, self.parents, self.slices, self.families))
        exchanges, parents, slices, families = lists
        return Rows(self.name, exchanges, self.labels[picked], parents, slices, families)  # type: ignore[arg-type]


class Study:
    """The data of a run, each part made when a cell first asks for it."""

    def __init__(self, examples: Path, public: Path | None, limit: int | None, seed: int, cache: Path, backbone: str,
                 say: Callable[[str, int, int], None]) -> None:  # fmt: skip
        self.seed, self.cache, self.backbone_name, self._say = seed, cache, backbone, say
        self._all = list(read_examples(examples))
        self._public_folder = public
        self.sizes = {name: min(size, limit or size) for name, size in SIZES.items()}
        self.told = {"examples": len(self._all), "sizes": self.sizes, "public": public is not None, "backbone": backbone}
        ids = hashlib.sha256(repr(sorted(e.id for e in self._all)).encode()).hexdigest()
        self.key = (ids, tuple(self.sizes.items()), public is not None, seed, backbone)

    # -- rows --

    def rows(self, name: str, split: str, replies: bool, most: int, where: Callable[[Example], bool] = lambda _: True) -> Rows:
        """The first `most` rows of a split by a hash of their parents, so that smaller draws lie inside larger ones.

        Raises:
            DataError: fewer than 20 rows on one side.
        """
        found = [e for e in self._all if e.split == split and (e.reply_restricted is not None) == replies and where(e)]
        found.sort(key=lambda e: (split_place(f"study:{self.seed}:{e.parent}"), e.id))
        return _rows(name, found[:most])

    @cached_property
    def train(self) -> Rows:
        return self.rows("train", "train", False, self.sizes["train"])

    @cached_property
    def dev(self) -> Rows:
        return self.rows("dev", "dev", False, self.sizes["dev"], _single)

    @cached_property
    def token_train(self) -> Rows:
        return self.rows("train", "train", False, self.sizes["token train"], _single)

    @cached_property
    def public(self) -> Rows | None:
        """Requests of the development benchmarks, pooled; None where no folder was given. Those of several turns are left out."""
        if self._public_folder is None:
            return None
        sets = [s for s in load_folder(self._public_folder) if s.name in PUBLIC and s.kind == "prompt"]
        items = [item for s in sample(sets, self.sizes["public"], self.seed) for item in s.items if len(item.exchange.turns) == 1]
        if not items:
            raise DataError(f"{self._public_folder}: holds none of the sets {', '.join(PUBLIC)}; leave --data away to do without")
        labels = np.array([item.positive for item in items])
        names = [f"{item.slice}:{item.exchange.id}" for item in items]
        return Rows("public", [item.exchange for item in items], labels, names, [item.slice for item in items], ["plain"] * len(items))

    @property
    def checks(self) -> list[Rows]:
        """The sets that prompts are measured on."""
        return [self.dev, *([self.public] if self.public else [])]

    # -- activations --

    @cached_property
    def wide(self) -> Backbone:
        """All layers, for window means."""
        return self._load(None)

    @cached_property
    def narrow(self) -> Backbone:
        """The layers that single tokens are kept of."""
        return self._load(self.chosen)

    @cached_property
    def chosen(self) -> tuple[int, ...]:
        """Every other of the upper 60 % of the lower two thirds: what `charter train` mostly chooses (docs/decisions/003)."""
        blocks = len(self.wide.layers)
        deepest = round(blocks * 2 / 3)
        return tuple(range(round(deepest * 0.4) + 2, deepest + 1, 2))

    def windows(self, rows: Rows, view: View = "prompt", backbone: Backbone | None = None) -> Windows:
        """Window means of 16 tokens, of all layers unless a backbone is given."""
        backbone = backbone or self.wide
        return ActivationStore(self.cache, backbone).windows(rows.exchanges, view, self._counter(f"windows of {rows.name}", rows))

    def tokens(self, rows: Rows, view: View = "prompt") -> Tokens:
        """States of single tokens, of the chosen layers."""
        return token_states(self.narrow, rows.exchanges, view, self.cache, self._counter(f"tokens of {rows.name}", rows))

    def columns(self, layers: Iterable[int]) -> NDArray[np.int64]:
        """Inputs of these layers among those of `wide`."""
        width = self.wide.width
        return np.concatenate([np.arange(width) + (layer - 1) * width for layer in layers])

    def _load(self, layers: tuple[int, ...] | None) -> Backbone:
        backbone = Backbone(self.backbone_name, layers)
        backbone.hurry()
        return backbone

    def _counter(self, stage: str, rows: Rows) -> Callable[[int], None]:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            self._say(stage, done, len(rows.exchanges))

        return count


def fit(
    windows: Windows, rows: Rows, columns: NDArray[np.int64] | slice = slice(None), recipe: Recipe | None = None, score: Score = loudest
) -> tuple[Heads, float]:
    """A probe and its penalty, the one of three with the best AUROC of `score` on a fifth of the parents held back."""
    recipe, labels = recipe or Recipe(), rows.labels.astype(np.float32)[:, None]
    back = np.array([split_place(f"penalty:{parent}") < HELD_BACK for parent in rows.parents])
    kept, out = np.flatnonzero(~back), np.flatnonzero(back)
    strength = STRENGTHS[1]
    if 0 < labels[out].sum() < len(out) and 0 < labels[kept].sum() < len(kept):
        inner, outer = windows.of(kept), windows.of(out)

        def quality(strength: float) -> float:
            heads = fit_probe(inner, labels[kept], strength, SEARCH_STEPS, columns, recipe=recipe)
            return auroc(rows.labels[out], score(outer, len(out), *heads, columns)[:, 0])

        strength = max(STRENGTHS, key=quality)
    return fit_probe(windows, labels, strength, STEPS, columns, recipe=recipe), strength


def served(window: int) -> Score:
    """Scores single tokens as serving would with this window."""
    return lambda windows, n, weights, bias, columns: served_maximum(windows, n, weights, bias, window, columns)


def _single(example: Example) -> bool:
    return len(example.turns) == 1


def _rows(name: str, found: list[Example]) -> Rows:
    labels = np.array([bool(e.prompt_restricted if e.reply_restricted is None else e.reply_restricted) for e in found], bool)
    if min(int(labels.sum()), int((~labels).sum())) < LEAST:
        raise DataError(f"the study's {name} rows have fewer than {LEAST} on one side; synthesize more, or raise --limit")
    return Rows(name, [e.exchange for e in found], labels, [e.parent for e in found], [e.slice for e in found], [e.family for e in found])
