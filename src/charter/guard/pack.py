"""Trained scorers to a guard folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from charter.constitution import Constitution
from charter.guard.calibration import tensors as kept
from charter.guard.card import card
from charter.guard.recalibrate import balanced, evidence, ordinary_slices
from charter.guard.record import EnsembleRecord, GateRecord, GuardRecord, HeadRecord, SpreadRecord, ViewRecord, WholeRecord
from charter.guard.scorers import CHANGE, GLANCE
from charter.guard.writing import save
from charter.models.ensemble import Ensemble
from charter.models.probe import Hidden
from charter.models.trained import Gate, Listening, OperatingPoint, Trained
from charter.models.whole import Whole
from charter.records import View


def pack(trained: Trained, constitution: Constitution, out: Path) -> GuardRecord:
    """Write the folder; what stood there before is replaced only once the new one is whole.

    Raises:
        GuardError: `out` holds something that is not a guard.
        DataError: the balanced point's budget is less than the guard's own.
    """
    cascade, whole = trained.cascade, trained.cascade.whole
    dev = {view: point.dev for view, point in trained.points.items()}
    budgets = trained.budget, trained.near_miss_budget
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
        window=cascade.probe.averaging.window,
        ema=cascade.probe.averaging.ema,
        clauses=list(cascade.clauses),
        views={view: _view(point) for view, point in trained.points.items()},
        ensemble=_ensemble(trained),
        whole=_whole(whole, trained.points["prompt"]) if whole else None,
        balanced=balanced(dev, cascade.clauses, budgets, {}, ordinary_slices(constitution), trained.balanced_budget),
        n_examples=trained.n_examples,
    )
    tensors: dict[str, dict[str, Any]] = {
        stem: {
            f"{view}.{part}": values[view]
            for view, point in trained.points.items()
            if stem == "probe" or not _screen_is_silent(point)
            for part, values in (("weight", scorer.weights), ("bias", scorer.biases))
        }
        for stem, scorer in (("probe", cascade.probe), ("screen", cascade.screen))
    }
    for stem in ("probe", "screen"):  # as float16: training has rounded them
        tensors[stem] = {name: array.astype(np.float16) if name.endswith("weight") else array for name, array in tensors[stem].items()}
    for view, hidden in cascade.probe.hidden.items():
        tensors["probe"] |= _hidden(view, hidden)
    if whole:
        change = {f"{CHANGE}{name}": tensor.numpy() for name, tensor in whole.encoder.change.items()}
        tensors["sentence"] = {**_hidden("prompt", whole.layer), "prompt.bias": whole.bias, **_glance(whole), **change}
    if cascade.probe.ensemble:
        tensors["ensemble"] = {name: array for view, own in cascade.probe.ensemble.items() for name, array in _members(view, own).items()}
    tensors["calibration"] = kept(dev)
    save(out, record, constitution.source, tensors, card(record, constitution), trained.head)
    return record


def _whole(whole: Whole, point: OperatingPoint) -> WholeRecord:
    gate = None if point.whole is None else _gate(point.whole)
    return WholeRecord(
        encoder=whole.encoder.name,
        fingerprint=whole.encoder.base,
        tuned=bool(whole.encoder.change),
        mix=whole.mix,
        lead=whole.lead,
        gate=gate,
    )


def _glance(whole: Whole) -> dict[str, Any]:
    """The first glance's tensors; none where there is none."""
    own = whole.glance
    return {**_hidden(GLANCE, own.layer), f"{GLANCE}.bias": np.array([own.bias], np.float32)} if own else {}


def _screen_is_silent(point: OperatingPoint) -> bool:
    """Whether a view's screen has neither a share nor a say in when the probe is asked, so that its weights need not be kept."""
    gate, whole = point.gates[0], point.whole
    return gate.mix == 1 and (gate.read is None or (whole is not None and whole.lead == 1))


def _hidden(prefix: str, layer: Hidden) -> dict[str, Any]:
    inner, outer = layer.inner.astype(np.float16), layer.outer.astype(np.float16)
    return {f"{prefix}.hidden.inner": inner, f"{prefix}.hidden.bias": layer.bias, f"{prefix}.hidden.outer": outer}


def _ensemble(trained: Trained) -> EnsembleRecord | None:
    if not trained.cascade.probe.ensemble:
        return None
    own = next(iter(trained.cascade.probe.ensemble.values()))
    found = {
        view: {side: SpreadRecord(**i.as_dict()) for side, i in sides.items() if i.value is not None}
        for view, sides in trained.disagreement.items()
    }
    return EnsembleRecord(serving=len(own.serving.seeds), held_out=len(own.held_out.seeds), disagreement=found)


def _members(view: View, own: Ensemble) -> dict[str, Any]:
    """All members of a view as arrays by name, those that serve first."""
    both = own.serving, own.held_out
    return {
        f"{view}.weight": np.concatenate([part.weights for part in both]).astype(np.float16),
        f"{view}.bias": np.concatenate([part.biases for part in both]),
        f"{view}.seeds": np.array([seed for part in both for seed in part.seeds], np.int64),
    }


def _view(point: OperatingPoint) -> ViewRecord:
    probe, *rest = point.gates
    return ViewRecord(
        threshold=min(point.calibration.threshold, 1.0),
        temperature=point.temperature,
        offset=point.offset,
        mix=probe.mix,
        gate=_gate(probe),
        head=HeadRecord(mix=rest[0].mix, gate=_gate(rest[0])) if rest else None,
        certified=point.calibration.certified,
        sentence=point.calibration.sentence,
        evidence=evidence(point.calibration),
        slices=list(point.dev.names),
    )


def _gate(gate: Gate | Listening) -> GateRecord | None:
    read = gate.read
    if read is None or read.value is None or read.low is None or read.high is None:
        return None
    return GateRecord(threshold=gate.threshold, read=read.value, low=read.low, high=read.high, n=read.n)
