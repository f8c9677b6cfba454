"""A value head that nobody trained: a random change of a backbone, with random heads."""

from __future__ import annotations

import torch

from charter.models.value_head import FinalBackbone, Tuned, TunedRecord

CLAUSES = ("locks", "potions")


def random_change(name: str, depth: int | None, blocks: int, whole: bool = False, size: float = 0.3) -> Tuned:
    """A seeded random change of every linear map of the last blocks, and heads with logits a few units wide."""
    rng = torch.Generator().manual_seed(3)
    backbone = FinalBackbone(name, depth)
    tensors: dict[str, torch.Tensor] = {}
    for module, linear in backbone.model.named_modules():
        if isinstance(linear, torch.nn.Linear) and int(module.split(".")[1]) >= backbone.depth - blocks:
            spread = size * float(linear.weight.std())
            if whole:
                tensors[f"{module}.weight"] = linear.weight + spread * torch.randn(linear.weight.shape, generator=rng)
            else:
                tensors[f"{module}.a"] = spread * torch.randn(2, linear.in_features, generator=rng)
                tensors[f"{module}.b"] = torch.randn(linear.out_features, 2, generator=rng)
    for view in ("prompt", "exchange"):
        tensors[f"head.{view}.weight"] = torch.randn(1 + len(CLAUSES), backbone.width, generator=rng) / backbone.width**0.5
        tensors[f"head.{view}.bias"] = torch.randn(1 + len(CLAUSES), generator=rng)
    record = TunedRecord(backbone=name, fingerprint=backbone.fingerprint, depth=backbone.depth, blocks=blocks, clauses=CLAUSES)
    return Tuned(record, tensors)
