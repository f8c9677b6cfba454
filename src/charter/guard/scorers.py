"""The scorers in a guard's folder: probe, screen, ensemble and value head from safetensors, shapes and finiteness checked, on their backbone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charter.errors import BackboneError, GuardError
from charter.guard.record import GateRecord, GuardRecord, HeadRecord, ViewRecord
from charter.records import View

if TYPE_CHECKING:
    from charter.models.cascade import Cascade
    from charter.models.probe import Hidden

HEAD, MEMBERS = "value_head.safetensors", "ensemble.safetensors"
"""Files that a guard may lack."""


def read_cascade(folder: Path, record: GuardRecord, backbone_name: str, generates: bool) -> Cascade:
    """The scorers of a folder whose hashes were checked, on their backbone.

    Args:
        generates: load the backbone with the head that names the next token.

    Raises:
        BackboneError: the backbone can't be loaded, or is not the one that the guard was trained on.
        GuardError: a tensor is missing, of another shape, or not finite.
    """
    from charter.guard.members import read as read_members
    from charter.models.backbone import Backbone
    from charter.models.cascade import Cascade
    from charter.models.generation import Generator
    from charter.models.probe import Averaging, Probe
    from charter.models.screen import BUCKETS, Screen

    backbone = (Generator if generates else Backbone)(backbone_name, record.layers)
    heads = 1 + len(record.clauses)
    inputs = len(record.layers) * backbone.width
    if backbone.fingerprint != record.backbone_fingerprint:
        raise BackboneError(
            f"{backbone_name}: is not the model that the guard {record.name!r} was trained on; name that one, or train again"
        )
    views: dict[View, ViewRecord] = dict(record.views)
    probe = _views(folder / "probe.safetensors", views, (heads, inputs), heads)
    screen = _views(folder / "screen.safetensors", views, (BUCKETS, heads), heads)
    mix = {view: own.mix for view, own in views.items()}
    gates = {view: _threshold(own.gate) for view, own in views.items()}
    hidden = _hidden(folder / "probe.safetensors", views, heads, inputs)
    ensemble = read_members(folder / MEMBERS, record, inputs) if record.ensemble else {}
    whole = Probe(backbone.layers, *probe, hidden, Averaging(record.window, record.ema), ensemble)
    cascade = Cascade(tuple(record.clauses), backbone, whole, Screen(*screen), mix, gates)
    return _with_head(cascade, folder / HEAD, record, backbone_name) if HEAD in record.files else cascade


def _with_head(cascade: Cascade, file: Path, record: GuardRecord, backbone_name: str) -> Cascade:
    """The cascade with the value head of a file, which must have the guard's clauses and views and the guard's backbone."""
    from charter.models.value_head import Tuned, ValueHead

    tuned = Tuned.load(file)
    if tuned.record.clauses != tuple(record.clauses) or set(tuned.views) != set(record.views):
        raise GuardError(f"{file}: has other clauses or views than the guard; train the guard again")
    heads: dict[View, HeadRecord] = {view: own.head for view, own in record.views.items() if own.head}
    gates = {view: _threshold(own.gate) for view, own in heads.items()}
    return cascade.with_head(ValueHead(tuned, backbone_name), {view: own.mix for view, own in heads.items()}, gates)


def _threshold(gate: GateRecord | None) -> float:
    return -np.inf if gate is None else gate.threshold


def _hidden(file: Path, views: Iterable[View], heads: int, inputs: int) -> dict[View, Hidden]:
    """The probe's hidden layers, checked; empty where it is linear."""
    from safetensors.numpy import load_file

    from charter.models.probe import Hidden

    arrays = load_file(file)  # `_views` has read it before
    found: dict[View, Hidden] = {}
    for view in views:
        parts = [arrays[name] for part in ("inner", "bias", "outer") if (name := f"{view}.hidden.{part}") in arrays]
        if not parts:
            continue
        units = parts[1].shape[:1] if len(parts) == 3 else ()
        if [part.shape for part in parts] != [(*units, inputs), units, (heads, *units)]:
            raise GuardError(f"{file}: the hidden layer of {view} does not fit {inputs} inputs and {heads} heads; train the guard again")
        with np.errstate(over="ignore"):  # what overflows is refused below
            inner, bias, outer = (part.astype(np.float32) for part in parts)
        if not all(np.isfinite(part).all() for part in (inner, bias, outer)):
            raise GuardError(f"{file}: the hidden layer of {view} holds numbers that are not finite; train the guard again")
        found[view] = Hidden(inner, bias, outer)
    return found


def _views(file: Path, views: Iterable[View], shape: tuple[int, int], heads: int) -> tuple[dict[View, Any], dict[View, Any]]:
    """Weights and biases of the views as float32, checked."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file)
    except (SafetensorError, ValueError, KeyError) as error:
        raise GuardError(f"{file}: can't be read as safetensors ({error})") from error
    weights: dict[View, Any] = {}
    biases: dict[View, Any] = {}
    for view in views:
        w, b = arrays.get(f"{view}.weight"), arrays.get(f"{view}.bias")
        if w is None or b is None or w.shape != shape or b.shape != (heads,):
            raise GuardError(f"{file}: {view} needs a weight of shape {list(shape)} and a bias of shape [{heads}]")
        with np.errstate(over="ignore"):  # what overflows is refused below
            weights[view], biases[view] = w.astype(np.float32), b.astype(np.float32)
        if not (np.isfinite(weights[view]).all() and np.isfinite(biases[view]).all()):
            raise GuardError(f"{file}: {view} holds numbers that are not finite; train the guard again")
    return weights, biases
