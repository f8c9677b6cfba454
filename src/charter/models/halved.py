"""Weights rounded to float16, and read as such in steps of few tokens: half of the bytes, which are what such a step costs.

Products are summed in float32 and give float32, so nothing but the weights is rounded. A forward of many tokens multiplies the same rounded
weights in float32, where it is faster; a text's scores are then the same, to float32's own rounding, in whatever steps it comes.
bfloat16 rounds eight times as coarsely, and sums to 16 bits. int8 rounds a step's inputs by its loudest token, so scores would depend on the steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from charter.models.packed import PackedLinear, children

FEW = 8
"""Rows up to which the 16-bit product is faster."""


class HalvedLinear(PackedLinear):
    """A packed linear layer with a 16-bit copy of its weights."""

    def __init__(self, layer: PackedLinear) -> None:
        linear = layer.unpacked()
        linear.weight.data = linear.weight.half().float()
        super().__init__(linear)
        self._half = torch.ops.quantized.linear_prepack_fp16(linear.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > FEW * x.shape[-1] or not x.numel():
            return super().forward(x)
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._half)
        return out if self._bias is None else out + self._bias


def able() -> bool:
    """Whether this torch has the product."""
    return torch.backends.quantized.engine in ("x86", "fbgemm") and hasattr(torch.ops.quantized, "linear_dynamic_fp16")


@torch.inference_mode()
def halve(module: Module) -> None:
    """Round the packed layers of a module. `packed.unpack` puts linear layers back, with the rounded weights."""
    for parent, name, layer in children(module, PackedLinear):
        if type(layer) is PackedLinear and bool((layer.unpacked().weight.abs() < 65_504).all()):
            setattr(parent, name, HalvedLinear(layer))
