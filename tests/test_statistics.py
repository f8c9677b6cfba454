"""Intervals and ranking figures against second sources: SciPy, scikit-learn, brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from charter import statistics as s
from charter.errors import NoData

PAIRS = st.lists(st.tuples(st.booleans(), st.one_of(st.integers(0, 4).map(lambda i: i / 4), st.floats(-1, 1))), min_size=2, max_size=60)
"""(label, score), ties among them."""
COUNTS = st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def _both_classes(pairs: list[tuple[bool, float]]) -> tuple[list[bool], list[float]]:
    labels = [label for label, _ in pairs]
    assume(any(labels) and not all(labels))
    return labels, [score for _, score in pairs]


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_is_scipys_exact_interval(counts: tuple[int, int], level: float) -> None:
    interval, expected = s.clopper_pearson(*counts, level), binomtest(*counts).proportion_ci(level, method="exact")
    assert (interval.value, interval.n) == (counts[0] / counts[1], counts[1])
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(COUNTS)
def test_the_upper_bound_is_the_rate_at_which_so_few_hits_have_five_percent(counts: tuple[int, int]) -> None:
    hits, n = counts
    bound = s.upper_bound(hits, n)
    if hits == n:
        assert bound == 1
    else:
        assert binomtest(hits, n, bound, alternative="less").pvalue == pytest.approx(0.05, abs=1e-6)
    if hits == 0:
        assert bound == pytest.approx(1 - 0.05 ** (1 / n))


@pytest.mark.parametrize(("budget", "n"), [(0.001, 2995), (0.005, 598), (0.01, 299), (0.05, 59), (0.1, 29)])
def test_certifiable_is_the_smallest_n_whose_bound_without_an_error_meets_the_budget(budget: float, n: int) -> None:
    assert s.certifiable(budget) == n
    assert s.upper_bound(0, n) <= budget < s.upper_bound(0, n - 1)


@given(PAIRS)
def test_auroc_is_scikit_learns(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = _both_classes(pairs)
    assert s.auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@given(PAIRS)
def test_average_precision_is_scikit_learns(pairs: list[tuple[bool, float]]) -> None:
    labels, scores = _both_classes(pairs)
    assert s.average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


@given(PAIRS, st.booleans())
def test_neither_figure_depends_on_the_order_of_the_items(pairs: list[tuple[bool, float]], backwards: bool) -> None:
    labels, scores = _both_classes(pairs)
    other = [(y, z) for y, z in (pairs[::-1] if backwards else sorted(pairs))]
    for figure in (s.auroc, s.average_precision):
        assert figure(labels, scores) == pytest.approx(figure(*zip(*other, strict=True)), abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_f1_is_scikit_learns(pairs: list[tuple[bool, bool]]) -> None:
    labels, flagged = zip(*pairs, strict=True)
    assert s.f1(labels, flagged) == pytest.approx(f1_score(labels, flagged, zero_division=0.0))


@given(PAIRS, st.sampled_from([0.0, 0.001, 0.01, 0.1, 0.29, 0.5, 1.0]))
def test_recall_at_fpr_is_the_best_recall_of_any_threshold_within_the_rate(pairs: list[tuple[bool, float]], rate: float) -> None:
    labels, scores = _both_classes(pairs)
    y, z = np.array(labels), np.array(scores)
    recalls = [np.mean(z[y] > t) for t in [-np.inf, *z] if np.mean(z[~y] > t) <= rate]
    assert s.recall_at_fpr(labels, scores, rate) == max(recalls)


@settings(max_examples=10)
@given(PAIRS, st.integers(0, 100))
def test_a_bootstrap_repeats_with_its_seed_and_its_figure_is_that_of_all_items(pairs: list[tuple[bool, float]], seed: int) -> None:
    labels, scores = _both_classes(pairs)
    interval = s.bootstrap(s.auroc, labels, scores, seed, draws=40)
    assert interval == s.bootstrap(s.auroc, labels, scores, seed, draws=40)
    assert (interval.value, interval.n) == (s.auroc(labels, scores), len(pairs))
    assert interval.low is not None
    assert interval.high is not None
    assert 0 <= interval.low <= interval.high <= 1


def test_a_bootstrap_interval_covers_what_theory_says_it_should() -> None:
    """AUROC of two normals one deviation apart is Phi(1 / sqrt 2) = 0.760; Hanley-McNeil gives its standard error."""
    rng = np.random.default_rng(1)
    labels = np.arange(400) < 200
    scores = rng.normal(size=400) + labels
    interval = s.bootstrap(s.auroc, labels, scores, seed=0)
    assert interval.low is not None
    assert interval.high is not None
    a = s.auroc(labels, scores)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + 199 * (q1 - a * a) + 199 * (q2 - a * a)) / 200**2)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert interval.low < 0.760 < interval.high


@settings(max_examples=20)
@given(PAIRS, st.lists(st.integers(0, 6), min_size=60, max_size=60), st.integers(0, 100))
def test_a_bootstrap_by_group_draws_whole_groups_and_keeps_both_classes(
    pairs: list[tuple[bool, float]], drawn: list[int], seed: int
) -> None:
    labels, _ = _both_classes(pairs)
    groups = np.array(drawn[: len(labels)])
    sizes = dict(zip(*np.unique(groups, return_counts=True), strict=True))
    seen: list[np.ndarray] = []

    def figure(y: np.ndarray, rows: np.ndarray) -> float:
        assert y.any()
        assert not y.all()
        assert (np.asarray(labels)[rows.astype(int)] == y).all()
        seen.append(groups[rows.astype(int)])
        return 0.0

    s.bootstrap(figure, labels, np.arange(len(labels)), seed, draws=20, groups=groups)
    for group, size in sizes.items():
        assert all((one == group).sum() % size == 0 for one in seen)


def test_copies_of_an_item_in_one_group_do_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(4)
    labels = np.arange(120) < 60
    scores = rng.normal(size=120) + labels
    alone = s.bootstrap(s.auroc, labels, scores, seed=0)
    copied = s.bootstrap(s.auroc, np.repeat(labels, 5), np.repeat(scores, 5), seed=0, groups=np.repeat(np.arange(120), 5))
    believed = s.bootstrap(s.auroc, np.repeat(labels, 5), np.repeat(scores, 5), seed=0)
    assert (copied.low, copied.high) == (alone.low, alone.high)
    assert believed.low is not None
    assert alone.low is not None
    assert believed.low > alone.low


@pytest.mark.parametrize("labels", [[], [True, True], [False, False]])
def test_no_data_is_an_error_and_never_zero(labels: list[bool]) -> None:
    scores = [0.5] * len(labels)
    for figure in (s.auroc, s.average_precision, lambda y, z: s.recall_at_fpr(y, z, 0.1), lambda y, z: s.bootstrap(s.auroc, y, z, 0)):
        with pytest.raises(NoData):
            figure(labels, scores)
    for proportion in (s.clopper_pearson, s.upper_bound):
        with pytest.raises(NoData):
            proportion(0, 0)
    assert s.absent(len(labels)).as_dict() == {"value": None, "low": None, "high": None, "n": len(labels)}


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=30), st.integers(0, 99))
def test_a_ratio_weighs_items_by_their_size_and_its_interval_holds_it(pairs: list[tuple[int, int]], seed: int) -> None:
    parts, wholes = [min(a, b) for a, b in pairs], [b for _, b in pairs]
    found = s.ratio(parts, wholes, seed)
    assert found.value == pytest.approx(sum(parts) / sum(wholes))
    assert found.n == len(pairs)
    assert 0 <= found.low <= found.high <= 1
    assert found == s.ratio(parts, wholes, seed)
    if len(set(pairs)) == 1:
        assert found.low == pytest.approx(found.high)


def test_a_ratios_interval_is_the_normal_one_where_items_are_many() -> None:
    rng = np.random.default_rng(0)
    wholes = rng.integers(5, 50, 4_000)
    parts = wholes * (rng.random(4_000) < 0.1)
    found = s.ratio(parts, wholes, 1, draws=2_000)
    error = (np.var(parts - found.value * wholes) / 4_000) ** 0.5 / wholes.mean()
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_ratio_of_nothing_is_an_error() -> None:
    for parts, wholes in (([], []), ([0], [0])):
        with pytest.raises(NoData):
            s.ratio(parts, wholes, 0)


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_without_clusters_a_clustered_proportion_is_clopper_and_pearsons(hits: list[bool]) -> None:
    assert s.clustered_proportion(hits, range(len(hits))) == s.clopper_pearson(sum(hits), len(hits))


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=2, max_size=30))
def test_copies_of_an_item_make_the_interval_no_narrower_than_the_items_themselves(clusters: list[tuple[bool, int]]) -> None:
    size = clusters[0][1]
    own = [hit for hit, _ in clusters]
    once = s.clopper_pearson(sum(own), len(own))
    found = s.clustered_proportion(np.repeat(own, size), np.repeat(np.arange(len(own)), size))
    assert found.value == pytest.approx(once.value)
    assert found.n == size * len(own)
    assert found.low <= once.low + 1e-9 + (0.02 if size == 1 else 0)
    assert found.high >= once.high - 1e-9 - (0.02 if size == 1 else 0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=60))
def test_a_clustered_interval_is_in_order_and_forgets_names_and_sequence(pairs: list[tuple[bool, int]]) -> None:
    hits, groups = [h for h, _ in pairs], [g for _, g in pairs]
    found = s.clustered_proportion(hits, groups)
    assert 0 <= found.low <= found.value <= found.high <= 1
    again = s.clustered_proportion(hits[::-1], [7 - g for g in groups[::-1]])
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_a_clustered_proportion_of_nothing_is_an_error() -> None:
    with pytest.raises(NoData):
        s.clustered_proportion([], [])
