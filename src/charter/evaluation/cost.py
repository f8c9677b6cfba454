"""What a guarded token costs beside one of the upstream, in FLOPs: the backbone's blocks that are run, and the probe.

The screen adds hash look-ups and a sum of a few weights, which are no matrix products and are left out. Both stages run on
every token, so the escalation rate is 1 until a guard says otherwise.
"""

from __future__ import annotations

from typing import Any

from charter.guard.folder import Guard

EMBEDDED_UPSTREAM = 212e6
"""FLOPs a token of SmolLM2-135M-Instruct: 2 for each of the 106 million weights of its 30 blocks."""


def cost(guard: Guard, upstream_flops_per_token: float | None = None) -> dict[str, Any]:
    """The `cost` part of evaluation.json.

    Args:
        upstream_flops_per_token: 2 for each active weight of the guarded model; the embedded model's where None.
    """
    spent = guard.cascade.backbone.flops_per_token + guard.cascade.probe.flops_per_token
    upstream = upstream_flops_per_token or EMBEDDED_UPSTREAM
    return {
        "guard_flops_per_token": spent,
        "upstream_flops_per_token": upstream,
        "overhead": spent / upstream,
        "escalation_rate": float(getattr(guard, "escalation_rate", 1.0)),
    }
