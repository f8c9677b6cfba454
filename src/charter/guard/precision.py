"""--precision: how finely the weights are kept of the backbones that a guard reads while it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from charter.errors import BackboneError

if TYPE_CHECKING:
    from charter.guard.folder import Guard

Precision = Literal["float32", "float16"]


def at_precision(guard: Guard, precision: Precision) -> Guard:
    """The same guard, its backbones' weights rounded where it is asked for (`models.halved`).

    Raises:
        BackboneError: this machine's torch can't multiply with such weights.
    """
    if precision == "float16" and not all(stage.backbone.halve() for stage in guard.cascade.stages):
        raise BackboneError("torch has no product with 16-bit weights for this processor; leave --precision out")
    return guard
