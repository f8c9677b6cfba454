"""A trained change of a weight as two thin factors: `NAME.a` [rank, inputs] and `NAME.b` [outputs, rank], whose product is added to `NAME.weight`."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def product(change: Mapping[str, Tensor], name: str, weight: Tensor | None) -> Tensor | None:
    """What a module's two factors add to its weight [outputs, inputs], float32; None where one is missing or they don't fit it."""
    a, b = (change.get(f"{name}.{half}") for half in ("a", "b"))
    if a is None or b is None or weight is None or a.ndim != 2 or b.ndim != 2 or b.shape[1] != len(a):
        return None
    return b.float() @ a.float() if (len(b), a.shape[1]) == tuple(weight.shape) else None
