"""Weights in the order in which oneDNN reads them fastest: the same arithmetic in float32, in less time where tokens are few.

    pack(blocks)      # linear layers inside are replaced, and unpack(blocks) puts them back

A step of a stream is a product with very few rows, and there torch's own choice (MKL) is slower than oneDNN with weights laid out
beforehand (`benchmarks/streaming.py`). The operators are those that torch's compiler uses for frozen models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module, Parameter


class PackedLinear(Module):
    """A linear layer for reading only."""

    def __init__(self, linear: Linear) -> None:
        super().__init__()
        self._weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return out

    def unpacked(self) -> Linear:
        """The layer as it was, to the bit."""
        weight = self._weight.to_dense()
        linear = Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = Parameter(weight, requires_grad=False)
        linear.bias = None if self._bias is None else Parameter(self._bias, requires_grad=False)
        return linear


def able() -> bool:
    """Whether this torch has the operators and this processor's weights are in memory that they read."""
    known: bool = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]
    return known


@torch.inference_mode()
def pack(module: Module) -> None:
    """Replace the linear layers of a module whose weights are float32 on the processor."""
    for parent, name, layer in children(module, Linear):
        if type(layer) is Linear and layer.weight.dtype == torch.float32 and layer.weight.device.type == "cpu":
            setattr(parent, name, PackedLinear(layer))


def unpack(module: Module) -> None:
    """Put the linear layers back."""
    for parent, name, layer in children(module, PackedLinear):
        setattr(parent, name, layer.unpacked())


def children(module: Module, kind: type[Any]) -> list[tuple[Module, str, Any]]:
    """The layers of a kind, with the modules that hold them and their names there."""
    return [(parent, name, child) for parent in module.modules() for name, child in parent.named_children() if isinstance(child, kind)]
