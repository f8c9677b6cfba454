import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import DataError
from charter.models.ensemble import Ensemble, Members, disagreement, log_mean_probability

LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


def members(seeds: tuple[int, ...]) -> Members:
    rng = np.random.default_rng(seeds[0])
    return Members(rng.normal(size=(len(seeds), 2, 3)).astype(np.float32), rng.normal(size=(len(seeds), 2)).astype(np.float32), seeds)


@given(LOGITS)
def test_the_score_is_the_log_of_the_mean_probability(z: list[float]) -> None:
    p = 1 / (1 + np.exp(-np.array(z)))
    assert log_mean_probability(np.array(z)) == pytest.approx(np.log(p.mean()), rel=1e-9, abs=1e-9)
    assert disagreement(np.array(z)) == pytest.approx(p.std(), abs=1e-12)


@given(LOGITS, st.integers(0, 7), st.floats(0.1, 10))
def test_no_member_that_grows_surer_lowers_the_score(z: list[float], which: int, more: float) -> None:
    raised = np.array(z)
    raised[which % len(z)] += more
    assert log_mean_probability(raised) >= log_mean_probability(np.array(z)) - 1e-12


def test_huge_logits_stay_finite() -> None:
    assert np.isfinite(log_mean_probability(np.array([[900.0, -900.0], [-900.0, -900.0]]))).all()
    assert disagreement(np.array([900.0, -900.0])) == 0.5


def test_members_score_as_each_would_alone() -> None:
    own, x = members((3, 4, 5)), np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    for k, z in enumerate(own.logits(x)):
        assert z == pytest.approx(x @ own.weights[k].T + own.biases[k], rel=1e-5, abs=1e-6)


def test_no_member_both_serves_and_is_held_out() -> None:
    with pytest.raises(DataError, match="seed 4"):
        Ensemble(members((3, 4)), members((4, 5)))
    with pytest.raises(DataError, match="at least one member"):
        Ensemble(Members(np.empty((0, 1, 2), np.float32), np.empty((0, 1), np.float32), ()), members((3,)))
