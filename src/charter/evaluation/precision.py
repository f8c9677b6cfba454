"""At which precision the sets are scored: as served, or with 16-bit weights in half of the time.

What 16 bits do to verdicts and figures is measured in docs/evaluation.md.
"""

from __future__ import annotations

from charter.errors import BackboneError
from charter.guard.folder import Guard


def sixteen_bits(guard: Guard) -> Guard:
    """The same guard, from now on with 16-bit weights: for scoring whole exchanges, not for streams.

    Raises:
        BackboneError: the processor has no instructions for it, so that it would be slower by far.
    """
    guard.cascade.hurry()
    if any(stage.backbone.dtype != "bfloat16" for stage in guard.cascade.stages):
        raise BackboneError("this processor has no instructions for bfloat16 (avx512_bf16, amx_bf16), so it would be slower; use float32")
    return guard
