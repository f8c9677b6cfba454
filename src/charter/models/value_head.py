"""The value head of Constitutional Classifiers (arXiv 2501.18837): a fine-tuned backbone with linear heads on its last hidden state.

What training leaves is small: the change of the last blocks (low-rank factors, or whole weights) and a matrix and a vector a view.
The factors are multiplied into the backbone's weights when they are loaded, so that serving is one plain forward:

    z_t = W h_t + b,    h_t the state after the last block that is run and the model's closing norm

There is no average over tokens: the heads were trained on the running maximum, which is their logit in the cascade.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from charter.errors import BackboneError, GuardError
from charter.models import llama, low_rank
from charter.models.backbone import Backbone
from charter.models.loading import fingerprint
from charter.records import View

KEY = "charter"
"""The entry of the file's header that holds the record."""
_CHANGE = re.compile(r"(layers\.(\d+)\.[A-Za-z0-9_.]+)\.(a|b|weight|bias)")


class TunedRecord(BaseModel):
    """What a file of tensors belongs to; kept in its header."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["value head"] = "value head"
    backbone: str
    fingerprint: str
    """Of the backbone before training; another model is refused."""
    depth: int = Field(ge=1)
    """Blocks that are run."""
    blocks: int = Field(ge=1)
    """Blocks that were trained: the last of them."""
    clauses: tuple[str, ...] = Field(max_length=1_000)
    """Restricted clauses with a head, in the order of the heads; head 0 is overall."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """A trained value head as data.

    `tensors` holds for each changed module of the backbone either two factors `NAME.a` and `NAME.b`
    (`models.low_rank`), or a whole parameter `NAME.weight` or `NAME.bias`; and for each view `head.VIEW.weight` [heads, width] and `head.VIEW.bias`.
    """

    record: TunedRecord
    tensors: dict[str, Tensor]

    @property
    def views(self) -> tuple[View, ...]:
        """The views that it was trained for."""
        known: tuple[View, ...] = ("prompt", "exchange", "reply")
        return tuple(view for view in known if f"head.{view}.weight" in self.tensors)

    def save(self, path: Path) -> None:
        """Write one safetensors file, to the side and then renamed."""
        write_tensors(path, self.tensors, self.record.model_dump_json())

    @classmethod
    def load(cls, path: Path) -> Tuned:
        """Read a file written by `save`. Whether it fits the backbone is checked when it meets it.

        Raises:
            GuardError: it is missing, damaged, foreign, or holds numbers that are not finite.
        """
        tensors, text = read_tensors(path)
        try:
            record = TunedRecord.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "its header"
            raise GuardError(f"{path}: not a value head of this version ({where}: {first['msg']}); train it again") from error
        tuned = cls(record, tensors)
        heads = 1 + len(record.clauses)
        for view in tuned.views:
            w, b = tensors[f"head.{view}.weight"], tensors.get(f"head.{view}.bias")
            if w.ndim != 2 or len(w) != heads or b is None or b.shape != (heads,):
                raise GuardError(f"{path}: {view} needs a weight of {heads} rows and a bias of shape [{heads}]; train it again")
        if not tuned.views:
            raise GuardError(f"{path}: has no head for any view; train it again")
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise GuardError(f"{path}: {name} holds numbers that are not finite; train it again")
        return tuned


class FinalBackbone(Backbone):
    """A backbone that is read at one place: after its last block and the closing norm. `layers` has one entry, the last block."""

    def __init__(self, name: str = "embedded", depth: int | None = None) -> None:
        """Load the model.

        Args:
            name: "embedded", a folder, or a hub id that transformers loads.
            depth: blocks that are run; all where None.

        Raises:
            BackboneError: it can't be loaded or has no such block.
        """
        super().__init__(name, None if depth is None else (depth,))
        self.layers = self.layers[-1:]
        for block in self._model.layers:
            block._forward_hooks.clear()  # the parent's: they would keep every block's states

    @property
    def model(self) -> Any:
        """The transformers model without its output head; `layers` holds the blocks that are run."""
        return self._model

    @property
    def depth(self) -> int:
        """Blocks that are run."""
        return self.layers[0]

    def merge(self, tuned: Tuned) -> None:
        """Add a trained change to the weights, once; from then on this is another model, with another fingerprint.

        Raises:
            BackboneError: the change was trained on another model.
            GuardError: a tensor doesn't fit it.
        """
        record = tuned.record
        if (self.fingerprint, self.depth) != (record.fingerprint, record.depth):
            raise BackboneError(f"{self.name}: is not the model that the value head was trained on; name that one, or train again")
        parameters = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, tensor in tuned.tensors.items():
                if name.startswith("head."):
                    if name.endswith(".weight") and tensor.shape[1] != self.width:
                        raise GuardError(f"value head: {name} reads {tensor.shape[1]} units, the backbone has {self.width}; train it again")
                    continue
                _add(name, tensor, tuned, parameters)
        self.fingerprint = fingerprint(self._model)

    @torch.inference_mode()
    def side_by_side(self, ids: Tensor, positions: Tensor, attend: llama.Attend) -> Tensor:
        *_, (_, last) = llama.blocks(self._model, ids, positions, attend)
        return llama.closed(self._model, last)[:, None].float()

    def _states(self, pool: Tensor | None, **inputs: Any) -> Tensor:
        states: Tensor = self._model(**inputs).last_hidden_state.float()
        return states[:, :, None] if pool is None else (pool @ states.flatten(0, 1))[:, None]


class ValueHead:
    """A trained value head, ready to serve: its own backbone, changed, and the heads on it.

    It has the face of a `Probe` (`turn`, `logits` of hidden states), so a cascade takes either for a stage.
    """

    def __init__(self, tuned: Tuned, backbone: str | None = None) -> None:
        """Load the backbone and merge the change into it.

        Args:
            backbone: where the backbone lies now, if not where it was trained; it must be the same model.

        Raises:
            BackboneError: it can't be loaded or is another model.
            GuardError: a tensor doesn't fit it.
        """
        self.clauses = tuned.record.clauses
        self.backbone = FinalBackbone(backbone or tuned.record.backbone, tuned.record.depth)
        self.backbone.merge(tuned)
        self.layers = self.backbone.layers
        heads = {view: (tuned.tensors[f"head.{view}.weight"], tuned.tensors[f"head.{view}.bias"]) for view in tuned.views}
        self.weights: dict[View, NDArray[np.float32]] = {view: w.float().numpy() for view, (w, _) in heads.items()}
        self.biases: dict[View, NDArray[np.float32]] = {view: b.float().numpy() for view, (_, b) in heads.items()}

    def logits(self, states: Tensor, view: View) -> NDArray[np.float32]:
        """Logits of each token: states [tokens, 1, width] of `backbone` to [tokens, heads], overall and then one a clause."""
        flat: NDArray[np.float32] = states.reshape(len(states), -1).numpy()
        out: NDArray[np.float32] = flat @ self.weights[view].T + self.biases[view]
        return out

    def batch(self, rows: Sequence[Sequence[int]], view: View) -> list[NDArray[np.float32]]:
        """Logits [tokens, heads] of whole token sequences, in one padded forward."""
        states = self.backbone.batch(rows)
        return [self.logits(own[: len(row)], view) for own, row in zip(states, rows, strict=True)]

    def turn(self, view: View) -> ValueTurn:
        """The state for a new turn."""
        return ValueTurn(self, view)

    @property
    def flops_per_token(self) -> float:
        """2 FLOPs a weight of one view's heads; the backbone's are its own."""
        return 2.0 * next(iter(self.weights.values())).size


class ValueTurn:
    """The value head over one turn: the running maximum of its logits, which it was trained on."""

    def __init__(self, head: ValueHead, view: View) -> None:
        self._head, self._view = head, view
        self._highest = np.full(len(head.biases[view]), -np.inf, np.float32)

    def push(self, states: Tensor) -> NDArray[np.float32]:
        """States [tokens, 1, width] of the turn's next tokens to running maxima [tokens, heads]."""
        raw = np.concatenate([self._highest[None], self._head.logits(states, self._view)])
        highest: NDArray[np.float32] = np.maximum.accumulate(raw)
        self._highest = highest[-1]
        return highest[1:]


def write_tensors(path: Path, tensors: dict[str, Tensor], record: str) -> None:
    """Write named tensors and a record as one safetensors file, to the side and then renamed."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside, {KEY: record})
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """All tensors of a file written by `write_tensors`, and its record.

    Raises:
        GuardError: it is missing, damaged or foreign.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file() or path.is_symlink():
        raise GuardError(f"{path}: there is no such file; train the value head first")
    try:
        with safe_open(path, "pt") as file:
            record = (file.metadata() or {}).get(KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise GuardError(f"{path}: can't be read as safetensors ({str(error).splitlines()[0]}); copy or train it again") from error
    if record is None:
        raise GuardError(f"{path}: was not written by Charter; train the value head again")
    return tensors, record


def _add(name: str, tensor: Tensor, tuned: Tuned, parameters: dict[str, Tensor]) -> None:
    """Add one tensor of a change to the parameter that it belongs to; `NAME.b` is taken together with `NAME.a`."""
    record = tuned.record
    found = _CHANGE.fullmatch(name)
    if not found or not record.depth - record.blocks <= int(found[2]) < record.depth:
        raise GuardError(f"value head: {name} is no part of the blocks that it says it trained; train it again")
    module, part = found[1], found[3]
    low = part in ("a", "b")
    target = parameters.get(f"{module}.weight" if low else name)
    new = low_rank.product(tuned.tensors, module, target) if low else tensor
    if target is None or new is None or new.shape != target.shape:
        raise GuardError(f"value head: {name} does not fit the backbone's weight of that name; train it again")
    if part == "a":  # once for the two
        target += new
    elif not low:
        target.copy_(new)
