"""Weights rounded to float16, and read as such in steps of few tokens: half of the bytes, which are what such a step costs.

Products are summed in float32 and give float32, so nothing but the weights is rounded. A forward of many tokens multiplies the same rounded
weights in float32, where it is faster; a text's scores are then the same, to float32's own rounding, in whatever steps it comes.
bfloat16 rounds eight times as coarsely, and sums to 16 bits. int8 rounds a step's inputs by its loudest token, so scores would depend on the steps;
torch's product with int8 weights alone is slower than this one for bfloat16 inputs, and several times slower for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from charter.models.packed import PackedLinear, children

FEW = 8
"""Rows up to which the 16-bit product is faster."""


class HalvedLinear(PackedLinear):
    """A packed linear layer with a 16-bit copy of its weights."""

    joined: Joined | None = None
    """The product of this layer and those beside it, where it is the first of them."""

    def __init__(self, layer: PackedLinear) -> None:
        linear = layer.unpacked()
        linear.weight.data = linear.weight.half().float()
        super().__init__(linear)
        self._half: Any = _prepacked(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self._half is None or not _short(x):
            return super().forward(x)
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._half)
        return out if self._bias is None else out + self._bias

    def give(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias, for a product with others; this layer by itself then multiplies short steps in float32 too."""
        self._half = None
        return self.unpacked().weight, self._bias


class Joined:
    """Layers that read the same input: one 16-bit product in short steps, whose calls cost as much as what they multiply."""

    def __init__(self, layers: Sequence[HalvedLinear]) -> None:
        weights, biases = zip(*(layer.give() for layer in layers), strict=True)
        self._layers, self._biases = tuple(layers), biases
        self._sizes = [len(weight) for weight in weights]
        self._half: Any = _prepacked(torch.cat(weights))

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        """The output of each layer, in their order."""
        if not _short(x):
            return [layer(x) for layer in self._layers]
        parts = torch.ops.quantized.linear_dynamic_fp16(x, self._half).split(self._sizes, -1)
        return [part if bias is None else part + bias for part, bias in zip(parts, self._biases, strict=True)]


def able() -> bool:
    """Whether this torch has the product."""
    return torch.backends.quantized.engine in ("x86", "fbgemm") and hasattr(torch.ops.quantized, "linear_dynamic_fp16")


@torch.inference_mode()
def halve(module: Module) -> None:
    """Round the packed layers of a module. `packed.unpack` puts linear layers back, with the rounded weights."""
    for parent, name, layer in children(module, PackedLinear):
        if type(layer) is PackedLinear and bool((layer.unpacked().weight.abs() < 65_504).all()):
            setattr(parent, name, HalvedLinear(layer))


@torch.inference_mode()
def join(layers: Sequence[Module]) -> None:
    """Let halved layers that read the same input share a product, found at the first as `joined`; others are left as they are."""
    halved = [layer for layer in layers if isinstance(layer, HalvedLinear)]
    if len(halved) == len(layers):
        halved[0].joined = Joined(halved)


def _prepacked(weight: Tensor) -> Any:
    return torch.ops.quantized.linear_prepack_fp16(weight.detach(), None)


def _short(x: Tensor) -> bool:
    return 0 < x.numel() <= FEW * x.shape[-1]
