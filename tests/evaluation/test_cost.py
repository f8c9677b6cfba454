from __future__ import annotations

from dataclasses import replace

import hearing
import numpy as np
import pytest

from charter.evaluation.cost import cost, seconds, stages
from charter.evaluation.datasets import Set
from charter.evaluation.run import Results, evaluate
from charter.evaluation.upstream import upstream
from charter.guard.folder import Guard


def test_a_guarded_token_costs_the_blocks_that_are_run_and_the_probe(guard: Guard) -> None:
    found = cost(guard)
    # SmolLM2-135M: 30 equal blocks; this guard runs 4 of them, and 3 heads on 576 states.
    assert found["guard_flops_per_token"] == pytest.approx(upstream().flops_per_token * 4 / 30 + 2 * 3 * 576, rel=0.01)
    assert found["overhead"] == pytest.approx(found["guard_flops_per_token"] / upstream().flops_per_token)
    assert found["escalation_rate"] == 1.0


def test_the_upstreams_cost_can_be_given(guard: Guard) -> None:
    assert cost(guard, upstream("7e10", 50.0))["upstream_flops_per_token"] == 1.4e11
    assert cost(guard, upstream("7e10", 50.0))["overhead"] < 0.001


@pytest.fixture(scope="module")
def gated(guard: Guard) -> Guard:
    """The backbone runs only where the screen has found one of its words."""
    return replace(guard, cascade=replace(guard.cascade, escalate={"prompt": -3.0, "exchange": -3.0}), hash="gated")


@pytest.fixture(scope="module")
def results(gated: Guard, sets: list[Set]) -> Results:
    return evaluate(gated, [replace(s, items=s.items[:8]) for s in sets])


def test_the_cost_is_counted_on_harmless_rows(gated: Guard, results: Results) -> None:
    """c_1 + e c_2, with e from the tokens of each row alone."""
    rows = [(i, o) for s in results.sets for i, o in zip(s.items, s.outcomes, strict=True)]
    alone = [next(iter(gated.cascade.batch([item.exchange], prompts=False))) for item, _ in rows]
    assert [(o.length, o.read) for _, o in rows] == [(s.tokens, s.read) for s in alone]
    found = cost(gated, results=results)
    harmless = [s for s, (item, _) in zip(alone, rows, strict=True) if not item.positive]
    rate = sum(s.read[0] for s in harmless) / sum(s.tokens for s in harmless)
    assert found["escalation_rate"] == pytest.approx(rate)
    assert found["guard_flops_per_token"] == pytest.approx(rate * cost(gated)["guard_flops_per_token"])
    (stage,) = stages(gated, results)
    assert stage["name"] == "probe"
    assert stage["read"]["n"] == len(harmless)
    assert stage["read"]["low"] <= rate <= stage["read"]["high"]
    assert {s.read[0] > 0 for s, (item, _) in zip(alone, rows, strict=True) if item.positive} == {True}


def test_seconds_add_up_as_flops_do(gated: Guard, results: Results) -> None:
    found, rate = seconds(gated, results), cost(gated, results=results)["escalation_rate"]
    assert found is not None
    assert found["guard"] == pytest.approx(found["screen"] + rate * found["probe"])
    assert all(value > 0 for value in found.values())


def test_rows_of_an_older_run_are_not_counted(gated: Guard, results: Results) -> None:
    older = replace(
        results, sets=tuple(replace(s, outcomes=tuple(replace(o, length=0, read=()) for o in s.outcomes)) for s in results.sets)
    )
    assert stages(gated, older)[0]["read"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 0}
    assert seconds(gated, older) is None
    assert np.isfinite(cost(gated, results=older)["overhead"])


def test_a_sentence_encoder_is_counted_on_rows_that_end_in_a_prompt(guard: Guard, sets: list[Set], tiny_bert: str) -> None:
    heard = replace(guard, cascade=hearing.listening(guard.cascade, tiny_bert), hash="heard")
    found = evaluate(heard, [replace(s, items=s.items[:8]) for s in sets])
    prompts = [(i, o) for s in found.sets for i, o in zip(s.items, s.outcomes, strict=True) if i.exchange.reply is None and not i.positive]
    replies = [o for s in found.sets for i, o in zip(s.items, s.outcomes, strict=True) if i.exchange.reply is not None]
    assert prompts
    assert {o.read[-1] for o in replies} == {0}
    share = stages(heard, found)[-1]["read"]
    assert (share["value"], share["n"]) == (
        pytest.approx(sum(o.read[-1] for _, o in prompts) / sum(o.length for _, o in prompts)),
        len(prompts),
    )
    alone = replace(found, sets=tuple(s for s in found.sets if s.view != "prompt"))
    assert stages(heard, alone)[-1]["read"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 0}
