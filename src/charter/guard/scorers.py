"""The scorers in a guard's folder, from safetensors, shapes and finiteness checked, on the models that they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charter.errors import BackboneError, GuardError
from charter.guard.record import GateRecord, GuardRecord, HeadRecord, ViewRecord, WholeRecord
from charter.records import View

if TYPE_CHECKING:
    from torch import Tensor

    from charter.models.cascade import Cascade
    from charter.models.glance import Glance
    from charter.models.probe import Hidden
    from charter.models.sentence import SentenceEncoder
    from charter.models.whole import Whole

HEAD, MEMBERS, WHOLE = "value_head.safetensors", "ensemble.safetensors", "sentence.safetensors"
"""Files that a guard may lack."""
CHANGE = "change."
"""Begins the names of what was trained into the sentence encoder, among the tensors of its file."""
GLANCE = "glance"
"""Begins those of its first glance."""


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
    heard = [
        view for view, own in views.items() if own.mix < 1 or (own.gate and not _led(record, view))
    ]  # without a part it need not be there
    screen = _views(folder / "screen.safetensors", heard, (BUCKETS, heads), heads)
    for part, shape in zip(screen, ((BUCKETS, heads), (heads,)), strict=True):
        part.update({view: np.zeros(shape, np.float32) for view in views if view not in heard})
    mix = {view: own.mix for view, own in views.items()}
    gates = {view: _threshold(own.gate) for view, own in views.items()}
    file = folder / "probe.safetensors"
    arrays = _arrays(file)
    hidden = {view: own for view in views if (own := _hidden(arrays, file, view, heads, inputs))}
    ensemble = read_members(folder / MEMBERS, record, inputs) if record.ensemble else {}
    whole = Probe(backbone.layers, *probe, hidden, Averaging(record.window, record.ema), ensemble)
    cascade = Cascade(tuple(record.clauses), backbone, whole, Screen(*screen), mix, gates)
    if record.whole:
        cascade = replace(cascade, whole=_whole(folder / WHOLE, record.whole, heads))
    return _with_head(cascade, folder / HEAD, record, backbone_name) if HEAD in record.files else cascade


def _whole(file: Path, record: WholeRecord, heads: int) -> Whole:
    """What reads whole turns, on its sentence encoder.

    Raises:
        BackboneError: the encoder can't be loaded, or is another one than the guard was trained on.
        GuardError: the file is damaged, or what was trained into the encoder does not fit it.
    """
    from charter.models.sentence import SentenceEncoder
    from charter.models.whole import Whole

    arrays = _arrays(file)
    change = _change(file, arrays)
    if record.tuned != bool(change):
        raise GuardError(
            f"{file}: holds {'a' if change else 'no'} change of the sentence encoder, other than guard.json says; train the guard again"
        )
    encoder = SentenceEncoder(record.encoder, change)
    if encoder.base != record.fingerprint:
        raise BackboneError(f"{record.encoder}: is not the sentence encoder that the guard was trained on; name that one, or train again")
    layer, bias = _hidden(arrays, file, "prompt", heads, encoder.width), arrays.get("prompt.bias")
    if layer is None or bias is None or bias.shape != (heads,) or not np.isfinite(bias).all():
        raise GuardError(f"{file}: needs a hidden layer and a bias of {heads} finite numbers; train the guard again")
    glance = _glance(file, arrays, encoder)
    if record.gate and glance is None:
        raise GuardError(f"{file}: has no first glance, by which guard.json says that the sentence encoder is asked; train the guard again")
    return Whole(encoder, layer, bias.astype(np.float32), record.mix, record.lead, glance, _threshold(record.gate))


def _led(record: GuardRecord, view: View) -> bool:
    """Whether the sentence encoder alone decides when a view's backbone is run."""
    return view == "prompt" and record.whole is not None and record.whole.lead == 1


def _glance(file: Path, arrays: Mapping[str, Any], encoder: SentenceEncoder) -> Glance | None:
    """The first glance, checked; None where there is none."""
    from charter.models.glance import Glance

    layer, bias = _hidden(arrays, file, GLANCE, 1, encoder.width), arrays.get(f"{GLANCE}.bias")
    if layer is None:
        return None
    if bias is None or bias.shape != (1,) or not np.isfinite(bias).all():
        raise GuardError(f"{file}: the first glance needs a bias that is one finite number; train the guard again")
    return Glance(layer, float(bias[0]))


def _change(file: Path, arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """What was trained into the sentence encoder, checked for all but whether it fits; nothing where it was left as it is."""
    import torch

    found = {name.removeprefix(CHANGE): array for name, array in arrays.items() if name.startswith(CHANGE)}
    for name, array in found.items():
        if array.dtype != np.float16 or not np.isfinite(array).all():
            raise GuardError(f"{file}: {CHANGE}{name} must hold finite numbers as float16; train the guard again")
    return {name: torch.from_numpy(array) for name, array in found.items()}


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


def _hidden(arrays: Mapping[str, Any], file: Path, name: str, heads: int, inputs: int) -> Hidden | None:
    """The hidden layer of a view or of the first glance, checked; None where there is none."""
    from charter.models.probe import Hidden

    parts = [arrays[key] for part in ("inner", "bias", "outer") if (key := f"{name}.hidden.{part}") in arrays]
    if not parts:
        return None
    units = parts[1].shape[:1] if len(parts) == 3 else ()
    if [part.shape for part in parts] != [(*units, inputs), units, (heads, *units)]:
        raise GuardError(f"{file}: the hidden layer of {name} does not fit {inputs} inputs and {heads} heads; train the guard again")
    with np.errstate(over="ignore"):  # what overflows is refused below
        inner, bias, outer = (part.astype(np.float32) for part in parts)
    if not all(np.isfinite(part).all() for part in (inner, bias, outer)):
        raise GuardError(f"{file}: the hidden layer of {name} holds numbers that are not finite; train the guard again")
    return Hidden(inner, bias, outer)


def _arrays(file: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except (SafetensorError, ValueError, KeyError) as error:
        raise GuardError(f"{file}: can't be read as safetensors ({error})") from error


def _views(file: Path, views: Iterable[View], shape: tuple[int, int], heads: int) -> tuple[dict[View, Any], dict[View, Any]]:
    """Weights and biases of the views as float32, checked."""
    arrays = _arrays(file)
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
