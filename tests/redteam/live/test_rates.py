from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson as law

from charter.errors import DataError, NoData
from charter.redteam.rates import JudgeError, Share, corrected, poisson, share, told_apart
from charter.statistics import Interval, clopper_pearson

PERFECT = Share(1.0, 10**9, 1e9)


def error(sensitivity: float, specificity: float, n: int = 10**9) -> JudgeError:
    return JudgeError(Share(sensitivity, n, n), Share(specificity, n, n), "")


@pytest.mark.parametrize(
    ("rate", "n", "sensitivity", "specificity", "labelled"),
    [(0.05, 200, 0.9, 0.9, 100), (0.3, 200, 0.95, 0.77, 95), (0.3, 100, 0.8, 0.7, 90), (0.7, 60, 0.8, 0.9, 60)],
)
def test_intervals_that_carry_the_judges_error_cover_the_truth(
    rate: float, n: int, sensitivity: float, specificity: float, labelled: int
) -> None:
    rng, covered, draws = np.random.default_rng(1), 0, 3_000
    for _ in range(draws):
        hits = rng.binomial(n, rate * sensitivity + (1 - rate) * (1 - specificity))
        right, quiet = rng.binomial(labelled, sensitivity), rng.binomial(labelled, specificity)
        judge = JudgeError(Share(right / labelled, labelled, labelled), Share(quiet / labelled, labelled, labelled), "")
        found = corrected(Share(hits / n, n, n), judge)
        if found is not None and found.low is not None and found.high is not None:
            covered += found.low <= rate <= found.high
    assert 0.93 <= covered / draws <= 0.97


def test_intervals_of_clustered_attempts_cover_the_truth() -> None:
    rng, covered, draws, effective = np.random.default_rng(2), 0, 800, list[float]()
    for _ in range(draws):
        own = rng.beta(2, 4, 60)  # each question's own rate: attempts at one are alike
        hits = rng.random((60, 5)) < own[:, None]
        found = share(hits.ravel().tolist(), np.repeat(np.arange(60), 5).tolist())
        effective.append(found.effective)
        i = found.interval
        assert i.low is not None
        assert i.high is not None
        covered += i.low <= 1 / 3 <= i.high
    assert 0.93 <= covered / draws <= 0.98  # exact intervals err on the wide side
    assert np.mean(effective) < 240


@given(st.integers(0, 50), st.integers(1, 50))
def test_a_perfect_judge_changes_no_rate(hits: int, more: int) -> None:
    n = hits + more
    found = corrected(Share(hits / n, n, n), JudgeError(PERFECT, PERFECT, ""))
    assert found is not None
    assert found.value == pytest.approx(hits / n, abs=1e-6)


def test_the_correction_is_rogan_and_gladens() -> None:
    found = corrected(Share(0.4, 100, 100.0), error(0.9, 0.8))
    assert found is not None
    assert found.value == pytest.approx((0.4 + 0.8 - 1) / (0.9 + 0.8 - 1))


def test_the_worse_the_judge_the_wider_the_interval_and_a_useless_one_corrects_nothing() -> None:
    widths = []
    for n in (1_000, 100, 30):
        found = corrected(Share(0.3, 200, 200.0), error(0.9, 0.85, n))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths == sorted(widths)
    assert corrected(Share(0.3, 200, 200.0), error(0.6, 0.45)) is None


def test_a_rate_that_the_judges_error_cannot_explain_is_not_corrected() -> None:
    """Hardly anything complies here, where the judge's false alarms alone would make it four in ten: it is another judge here."""
    assert corrected(Share(0.05, 200, 200.0), error(0.97, 0.6, 200)) is None
    assert corrected(Share(0.99, 200, 200.0), error(0.6, 0.9, 200)) is None


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_independent_trials_have_the_exact_interval(hits: list[bool]) -> None:
    assert share(hits, range(len(hits))).interval == clopper_pearson(sum(hits), len(hits))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=80))
def test_clusters_never_count_for_more_than_their_trials(rows: list[tuple[bool, int]]) -> None:
    found = share([hit for hit, _ in rows], [cluster for _, cluster in rows])
    assert 0 < found.effective <= found.n == len(rows)
    i = found.interval
    assert i.low is not None
    assert i.high is not None
    assert 0 <= i.low <= found.value <= i.high <= 1


def test_attempts_that_all_end_alike_count_once_a_question() -> None:
    assert share([False] * 40, [n // 10 for n in range(40)]).effective == 4


def test_no_trial_is_an_error() -> None:
    with pytest.raises(NoData):
        share([], [])


@given(st.integers(0, 400))
def test_poissons_interval_is_the_exact_one(count: int) -> None:
    i = poisson(count)
    assert i.low is not None
    assert i.high is not None
    assert law.cdf(count, i.high) == pytest.approx(0.025)
    assert i.low == 0 if count == 0 else law.sf(count - 1, i.low) == pytest.approx(0.025)


def test_a_negative_count_is_an_error() -> None:
    with pytest.raises(DataError, match="negative"):
        poisson(-1)


def test_only_intervals_that_do_not_overlap_are_told_apart() -> None:
    counts = {"a": poisson(20), "b": poisson(2), "c": poisson(12)}
    assert told_apart(counts) == [("a", "b")]
    assert told_apart({"a": Interval(1, None, None, 0), "b": poisson(0)}) == []
