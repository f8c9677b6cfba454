"""Trained scorers to a guard folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charter.constitution import Constitution
from charter.guard.calibration import tensors as kept
from charter.guard.card import card
from charter.guard.folder import VIEWS, GuardRecord, ViewRecord, save
from charter.guard.recalibrate import evidence
from charter.models.trained import OperatingPoint, Trained


def pack(trained: Trained, constitution: Constitution, out: Path) -> GuardRecord:
    """Write the folder; what stood there before is replaced only once the new one is whole.

    Raises:
        GuardError: `out` holds something that is not a guard.
    """
    cascade = trained.cascade
    record = GuardRecord(
        name=out.name,
        constitution=constitution.name,
        constitution_hash=constitution.hash,
        budget=trained.budget,
        near_miss_budget=trained.near_miss_budget,
        seed=trained.seed,
        backbone=cascade.backbone.name,
        backbone_fingerprint=cascade.backbone.fingerprint,
        layers=list(cascade.backbone.layers),
        clauses=list(cascade.clauses),
        views={view: _view(point) for view, point in trained.points.items()},
        n_examples=trained.n_examples,
    )
    tensors: dict[str, dict[str, Any]] = {
        stem: {f"{view}.{part}": values[view] for view in VIEWS for part, values in (("weight", scorer.weights), ("bias", scorer.biases))}
        for stem, scorer in (("probe", cascade.probe), ("screen", cascade.screen))
    }
    for stem in ("probe", "screen"):  # as float16: training has rounded them
        tensors[stem] = {name: array.astype(np.float16) if name.endswith("weight") else array for name, array in tensors[stem].items()}
    for view, hidden in cascade.probe.hidden.items():
        inner, outer = hidden.inner.astype(np.float16), hidden.outer.astype(np.float16)
        tensors["probe"] |= {f"{view}.hidden.inner": inner, f"{view}.hidden.bias": hidden.bias, f"{view}.hidden.outer": outer}
    tensors["calibration"] = kept({view: point.dev for view, point in trained.points.items()})
    save(out, record, constitution.source, tensors, card(record, constitution))
    return record


def _view(point: OperatingPoint) -> ViewRecord:
    return ViewRecord(
        threshold=min(point.calibration.threshold, 1.0),
        temperature=point.temperature,
        offset=point.offset,
        mix=point.mix,
        certified=point.calibration.certified,
        sentence=point.calibration.sentence,
        evidence=evidence(point.calibration),
        slices=list(point.dev.names),
    )
