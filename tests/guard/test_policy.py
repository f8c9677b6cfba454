"""Scores to verdicts to actions: flagged once is flagged for good, and shadow mode blocks nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from charter.guard.policy import Judge, decide
from charter.models.calibrate import ABOVE_ALL, ViewPolicy
from charter.records import Verdict

POLICY = ViewPolicy(threshold=0.8, temperature=2.0, offset=-0.5)
TOKENS = arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(-12, 12, width=32))


@given(st.floats(-1e4, 1e4), st.floats(0.01, 100), st.floats(-50, 50))
def test_a_probability_is_the_logistic_of_the_scaled_logit_and_never_quite_one(z: float, temperature: float, offset: float) -> None:
    p = float(ViewPolicy(0.5, temperature, offset).probability(z))
    assert p == pytest.approx(float(expit(z / temperature + offset)), abs=1e-12)
    assert 0 < p < 1


@given(TOKENS)
def test_the_verdict_is_the_first_crossing_and_the_running_maximum(z: np.ndarray) -> None:
    judge = Judge(POLICY, ("locks", "potions"))
    passes = [judge.push(row) for row in z]
    p = expit(z.astype(float) / 2.0 - 0.5)
    crossing = next((t for t in range(len(z)) if p[t, 0] >= 0.8), None)
    clause = None if crossing is None else ("locks", "potions")[int(z[crossing, 2] > z[crossing, 1])]
    assert passes == [crossing is None or t < crossing for t in range(len(z))]
    assert judge.verdict == Verdict(crossing is not None, pytest.approx(max(p[:, 0], default=0.0)), clause, crossing)
    np.testing.assert_allclose(judge.clause_scores, p[:, 1:].max(0, initial=0.0))


@given(TOKENS)
def test_what_was_flagged_stays_flagged_with_its_clause_and_position(z: np.ndarray) -> None:
    judge = Judge(POLICY, ("locks", "potions"))
    judge.push(np.array([9.0, -1.0, 2.0], np.float32))
    for row in z:
        assert not judge.push(row)
        assert (judge.verdict.clause, judge.verdict.position) == ("potions", 0)


def test_a_score_at_the_threshold_is_flagged_and_just_below_it_is_not() -> None:
    p = float(POLICY.probability(np.float32(3.0)))
    assert Judge(ViewPolicy(p, 2.0, -0.5), ()).push(np.array([3.0], np.float32)) is False
    assert Judge(ViewPolicy(np.nextafter(p, 1), 2.0, -0.5), ()).push(np.array([3.0], np.float32)) is True


def test_a_score_that_is_no_number_does_not_pass() -> None:
    judge = Judge(POLICY, ("locks",))
    assert judge.push(np.array([np.nan, np.nan], np.float32)) is False
    assert judge.verdict.flagged
    assert judge.verdict.position == 0


def test_a_guard_without_clauses_flags_without_naming_one() -> None:
    judge = Judge(POLICY, ())
    judge.push(np.array([9.0], np.float32))
    assert judge.verdict.flagged
    assert judge.verdict.clause is None


@pytest.mark.parametrize(
    ("flagged", "mode", "action"),
    [(True, "enforce", "block"), (True, "shadow", "allow"), (False, "enforce", "allow"), (False, "shadow", "allow")],
)
def test_only_a_flag_in_enforce_mode_blocks(flagged: bool, mode: str, action: str) -> None:
    assert decide(Verdict(flagged, 0.9, None, None), mode) == action  # type: ignore[arg-type]


@given(TOKENS, st.floats(0, 1), st.lists(st.one_of(st.floats(0, 1), st.just(ABOVE_ALL)), min_size=2, max_size=2))
def test_a_clause_flags_by_its_own_threshold_too_and_is_named_where_it_alone_does(z: np.ndarray, overall: float, own: list[float]) -> None:
    policy = ViewPolicy(overall, 2.0, -0.5, tuple(own))
    judge = Judge(policy, ("locks", "potions"))
    passes = [judge.push(row) for row in z]
    p = policy.probability(z)
    alone = p[:, 1:] >= np.array(own)
    fires = (p[:, 0] >= overall) | alone.any(1)
    crossing = int(np.argmax(fires)) if fires.any() else None
    assert passes == [crossing is None or t < crossing for t in range(len(z))]
    assert judge.verdict.position == crossing
    np.testing.assert_array_equal(policy.fires(p), fires)
    if crossing is not None and p[crossing, 0] < overall:
        assert alone[crossing][("locks", "potions").index(str(judge.verdict.clause))]


@given(TOKENS, st.floats(0, 1))
def test_thresholds_that_nothing_reaches_change_nothing(z: np.ndarray, overall: float) -> None:
    verdicts = []
    for own in ((), (ABOVE_ALL, ABOVE_ALL)):
        judge = Judge(ViewPolicy(overall, 2.0, -0.5, own), ("locks", "potions"))
        for row in z:
            judge.push(row)
        verdicts.append(judge.verdict)
    assert verdicts[0] == verdicts[1]


def test_a_clause_score_that_is_no_number_does_not_pass_an_own_threshold() -> None:
    judge = Judge(ViewPolicy(0.9, 1.0, 0.0, (0.5,)), ("locks",))
    assert judge.push(np.array([-9.0, np.nan], np.float32)) is False
