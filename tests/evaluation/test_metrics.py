from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from charter.evaluation import metrics
from charter.evaluation.datasets import Item
from charter.evaluation.run import Outcome, Results, SetResult
from charter.records import Exchange, Turn, Verdict

THRESHOLD = 0.5


def result(labels: list[bool], scores: list[float], name: str = "a", kind: str = "prompt", **traits: Any) -> SetResult:
    items = tuple(
        Item(
            Exchange(str(n), (Turn("user", f"x{n}"),)),
            y,
            traits.get("slice", "s"),
            traits.get("family"),
            traits.get("clause") if y else None,
        )
        for n, y in enumerate(labels)
    )
    outcomes = tuple(
        Outcome(Verdict(s >= THRESHOLD, s, traits.get("named") if s >= THRESHOLD else None, 0 if s >= THRESHOLD else None), 5)
        for s in scores
    )
    return SetResult(name, kind, items, outcomes)


rows = st.lists(st.tuples(st.booleans(), st.integers(0, 20).map(lambda n: n / 20)), min_size=4, max_size=40)


@settings(max_examples=25, deadline=None)
@given(rows)
def test_figures_agree_with_a_second_source(pairs: list[tuple[bool, float]]) -> None:
    y, s = [True, False, *(y for y, _ in pairs)], [0.7, 0.2, *(s for _, s in pairs)]
    found = metrics.of_set(result(y, s), seed=0)
    flagged = np.array(s) >= THRESHOLD
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(y, s))
    assert found["auprc"]["value"] == pytest.approx(average_precision_score(y, s))
    assert found["f1"]["value"] == pytest.approx(f1_score(y, flagged))
    for key, truth in (("recall", True), ("fpr", False)):
        group = flagged[np.array(y) == truth]
        exact = binomtest(int(group.sum()), len(group)).proportion_ci(method="exact")
        assert (found[key]["low"], found[key]["high"], found[key]["n"]) == (pytest.approx(exact.low), pytest.approx(exact.high), len(group))
    for interval in (found["auroc"], found["auprc"], found["f1"], *found["recall_at_fpr"].values()):
        assert interval["low"] <= interval["high"]
        assert interval["n"] == len(y)


def test_recall_at_a_rate_allows_that_share_of_the_negatives_and_no_more() -> None:
    y = [False] * 1_000 + [True] * 4
    s = [n / 2_000 for n in range(1_000)] + [0.9, 0.4992, 0.4949, 0.2]
    found = metrics.of_set(result(y, s), seed=0)["recall_at_fpr"]
    assert {rate: interval["value"] for rate, interval in found.items()} == {"0.001": 0.5, "0.005": 0.5, "0.01": 0.75}


@pytest.mark.parametrize("positive", [True, False])
def test_a_figure_whose_class_is_absent_is_null_not_zero(positive: bool) -> None:
    found = metrics.of_set(result([positive] * 3, [0.9, 0.1, 0.2]), seed=0)
    null = {"value": None, "low": None, "high": None}
    for interval in (found["auroc"], found["auprc"], found["f1"], *found["recall_at_fpr"].values()):
        assert interval == {**null, "n": 3}
    assert found["fpr" if positive else "recall"] == {**null, "n": 0}
    assert found["recall" if positive else "fpr"]["value"] == pytest.approx(1 / 3)


def test_the_seed_decides_the_intervals_and_nothing_else() -> None:
    drawn = result([True, False] * 20, [n / 40 for n in range(40)])
    one, same, other = (metrics.of_set(drawn, seed)["auroc"] for seed in (0, 0, 1))
    assert one == same
    assert one["value"] == other["value"]
    assert one["low"] != other["low"]


def test_slices_count_negatives_families_and_clauses_positives_and_replies_stand_apart() -> None:
    sets = (
        result([True, True, False], [0.9, 0.1, 0.8], "p", slice="chat", family="base64", clause="wolves", named="wolves"),
        result([True, False], [0.9, 0.1], "r", "response", slice="chat", family="base64", clause="wolves", named="ravens"),
    )
    results = Results("h", 0, sets, {})
    assert {k: (v["n"], v["flagged"]) for k, v in metrics.slices(results).items()} == {"chat": (1, 1), "chat (reply)": (1, 0)}
    assert {k: (v["n"], v["recall"]["value"]) for k, v in metrics.families(results).items()} == {
        "base64": (2, 0.5),
        "base64 (reply)": (1, 1.0),
    }
    clauses = metrics.clauses(results)
    assert clauses["wolves"]["named"]["value"] == 1.0
    assert clauses["wolves"]["named"]["n"] == 1
    assert clauses["wolves (reply)"]["named"]["value"] == 0.0


def test_traits_nobody_knows_make_no_row() -> None:
    results = Results("h", 0, (result([True, False], [0.9, 0.1]),), {})
    assert metrics.families(results) == {}
    assert metrics.clauses(results) == {}
