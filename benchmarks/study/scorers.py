"""Screen, probe and both; an ensemble against one; how alike the scorers rank (CC++, section on ensembles)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from charter.models.ensemble import disagreement, log_mean_probability
from charter.models.screen import turn_features
from charter.models.segments import cut
from charter.statistics import bootstrap
from charter.training.ensemble import SERVING, fit_ensemble
from charter.training.probe import loudest
from charter.training.screen import fit_screen
from study.cells import DRAWS, Cell, Measured, Outcome, measured
from study.data import STEPS, Rows, Study, fit

SHARE = 0.5
"""The probe's: fixed beforehand, where the paper tuned it on its test set and found a half near the best."""


def cells() -> Iterator[Cell]:
    """All on the same rows."""
    yield Cell("scorers", "screen", lambda study: _scorer(study, lambda rows: both(study, rows)[:, 0]))
    yield Cell("scorers", "probe", lambda study: _scorer(study, lambda rows: both(study, rows)[:, 1]))
    yield Cell("scorers", "both", lambda study: _scorer(study, lambda rows: both(study, rows) @ [1 - SHARE, SHARE]))
    yield Cell("scorers", "ensemble", _ensemble)


def both(study: Study, rows: Rows) -> NDArray[np.float64]:
    """Logits of screen and probe, [rows, 2], fitted on the training rows."""
    (weights, bias), heads, columns = _fitted(study)
    states = [turn_features(cut(e.prompt[-1].content)) for e in rows.exchanges]
    screen = [sum(value * weights[bucket, 0] for bucket, value in state.items()) + bias[0] for state in states]
    probe = loudest(study.windows(rows), len(rows.exchanges), *heads, columns)[:, 0]
    return np.stack([np.array(screen, np.float64), probe.astype(np.float64)], 1)


@lru_cache(maxsize=1)
def _fitted(study: Study):  # type: ignore[no-untyped-def]
    train, columns = study.train, study.columns(study.chosen)
    screen = fit_screen(train.exchanges, train.labels.astype(np.float32)[:, None], "prompt")
    heads, _ = fit(study.windows(train), train, columns)
    return screen, heads, columns


def _scorer(study: Study, score: Callable[[Rows], NDArray[np.float64]]) -> Outcome:
    sets: dict[str, Measured] = {}
    notes = {}
    for rows in study.checks:
        sets |= measured(rows, score(rows))
        alike = bootstrap(_spearman, rows.labels, both(study, rows), study.seed, DRAWS, _groups(rows))
        notes[f"Spearman of screen and probe, {rows.name}"] = alike.as_dict()
    return Outcome(sets, len(study.train.exchanges), notes)


def _ensemble(study: Study) -> Outcome:
    """Members fitted on parents drawn with replacement; the score is the log of their mean probability."""
    train, columns = study.train, study.columns(study.chosen)
    windows = study.windows(train)
    _, strength = fit(windows, train, columns)
    labels = train.labels.astype(np.float32)[:, None]
    ensemble = fit_ensemble(windows, labels, train.parents, strength, study.seed, columns=columns, steps=STEPS)
    sets: dict[str, Measured] = {}
    notes = {}
    for rows in study.checks:
        own = study.windows(rows)
        parts = zip(ensemble.serving.weights, ensemble.serving.biases, strict=True)
        z = np.stack([loudest(own, len(rows.exchanges), w, b, columns)[:, 0] for w, b in parts])
        sets |= measured(rows, log_mean_probability(z))
        alike = bootstrap(_spearman, rows.labels, z[:2].T, study.seed, DRAWS, _groups(rows))
        notes[f"Spearman of two members, {rows.name}"] = alike.as_dict()
        notes[f"mean disagreement, {rows.name}"] = float(disagreement(z).mean())
    return Outcome(sets, len(train.exchanges), {"members": SERVING, **notes})


def _spearman(_labels: object, scores: NDArray[np.float64]) -> float:
    return float(spearmanr(scores[:, 0], scores[:, 1]).statistic)


def _groups(rows: Rows) -> NDArray[np.int64]:
    return np.unique(np.asarray(rows.parents), return_inverse=True)[1]
