from __future__ import annotations

from typing import Any

from charter.report.caveats import caveats, percent


def evaluation(**changes: Any) -> dict[str, Any]:
    at = {"0.001": {"value": 0.5}}
    base: dict[str, Any] = {
        "guard": {"budget": 0.001},
        "sets": {"public": {"n": 5_000, "positives": 1_000, "recall_at_fpr": at}},
        "slices": {"chat": {"n": 3_000, "fpr": {"high": 0.0009}}},
        "streaming": {"n": 3},
        "left_out": {},
    }
    return base | changes


def claims(found: dict[str, Any]) -> str:
    return "\n".join(f"{claim} {reason}" for claim, reason in caveats(found))


def test_no_evaluation_is_without_caveats() -> None:
    assert "attacker" in claims(evaluation())
    assert "intervals" in claims(evaluation())


def test_a_budget_that_no_slice_can_certify_is_told_with_the_number_it_takes() -> None:
    short = evaluation(slices={"chat": {"n": 40, "fpr": {"high": 0.07}}, "code": {"n": 3_000, "fpr": {"high": 0.0009}}})
    assert "On 1 of 2 slices" in claims(short)
    assert "2,995" in claims(short)
    assert "2,995" not in claims(evaluation())
    assert "No harmless item" in claims(evaluation(slices={}))


def test_a_rate_finer_than_the_data_is_told_by_set() -> None:
    coarse = {"tiny": {"n": 100, "positives": 50, "recall_at_fpr": {"0.001": {"value": 0.5}}}}
    assert "so on tiny" in claims(evaluation(sets=coarse))
    assert "no observed false positive" not in claims(evaluation())


def test_held_out_and_public_sets_have_their_own_caveats() -> None:
    row = evaluation()["sets"]["public"]
    assert "held-out sets carries over" not in claims(evaluation())
    assert "other people's rules" in claims(evaluation())
    assert "other people's rules" not in claims(evaluation(sets={"heldout_prompt": row}))


def test_what_was_left_out_is_summed_over_sets() -> None:
    left = {"a": {"label x": 2, "not drawn (limit)": 5}, "b": {"label x": 3}}
    assert "5 (label x)" in claims(evaluation(left_out=left))
    assert "random choice by the seed" in claims(evaluation(left_out=left))
    assert "Anything about streams." in claims(evaluation(streaming={"n": 0}))


def test_rates_read_as_people_write_them() -> None:
    assert [percent(r) for r in (0.001, 0.05, 0.0025)] == ["0.1 %", "5 %", "0.25 %"]
