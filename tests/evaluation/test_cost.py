from __future__ import annotations

import pytest

from charter.evaluation.cost import EMBEDDED_UPSTREAM, cost
from charter.guard.folder import Guard


def test_a_guarded_token_costs_the_blocks_that_are_run_and_the_probe(guard: Guard) -> None:
    found = cost(guard)
    # SmolLM2-135M: 30 equal blocks; this guard runs 4 of them, and 3 heads on 576 states.
    assert found["guard_flops_per_token"] == pytest.approx(EMBEDDED_UPSTREAM * 4 / 30 + 2 * 3 * 576, rel=0.01)
    assert found["overhead"] == pytest.approx(found["guard_flops_per_token"] / EMBEDDED_UPSTREAM)
    assert found["escalation_rate"] == 1.0


def test_the_upstreams_cost_can_be_given(guard: Guard) -> None:
    assert cost(guard, 1.4e11)["upstream_flops_per_token"] == 1.4e11
    assert cost(guard, 1.4e11)["overhead"] < 0.001
