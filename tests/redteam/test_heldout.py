"""The held-out set and its figures, against what can be counted by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import NoData
from charter.records import Example
from charter.redteam.arsenal import Arsenal
from charter.redteam.heldout import HeldOut, held_out_set, report
from charter.statistics import recall_at_fpr


@pytest.fixture(scope="module")
def test_rows(examples: list[Example]) -> list[Example]:
    return [e for e in examples if e.split == "test" and e.reply_restricted is None]


def test_each_prompt_is_disguised_once_in_a_held_out_family_dealt_evenly_on_both_sides(test_rows: list[Example], arsenal: Arsenal) -> None:
    held = held_out_set(test_rows, arsenal, 0, 150)
    assert len({row.parent for row in held.rows}) == len(held.rows) == len(test_rows)
    assert {row.family for row in held.rows} == set(arsenal.held_out)
    for restricted in (True, False):
        counts = Counter(row.family for row in held.rows if row.prompt_restricted == restricted)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_at_most_per_family_of_a_label(test_rows: list[Example], arsenal: Arsenal) -> None:
    held = held_out_set(test_rows, arsenal, 0, 3)
    assert set(Counter((row.family, row.prompt_restricted) for row in held.rows).values()) == {3}


def test_the_set_depends_on_the_seed_and_not_on_the_order_of_the_examples(test_rows: list[Example], arsenal: Arsenal) -> None:
    held = held_out_set(test_rows, arsenal, 0, 5)
    assert held == held_out_set(test_rows[::-1], arsenal, 0, 5)
    assert held.digest != held_out_set(test_rows, arsenal, 1, 5).digest


def test_a_family_that_loses_the_meaning_passes_the_prompt_on(test_rows: list[Example], arsenal: Arsenal) -> None:
    picky = replace(arsenal, keeps=lambda original, disguised, family: family.name != "binary")
    held = held_out_set(test_rows, picky, 0, 150)
    assert {row.family for row in held.rows} == {"fiction:novel"}
    assert len(held.rows) == len(test_rows)


def test_no_data_is_an_error(test_rows: list[Example], arsenal: Arsenal) -> None:
    with pytest.raises(NoData, match="no family is held out"):
        held_out_set(test_rows, replace(arsenal, held_out=()), 0, 150)
    with pytest.raises(NoData, match="no restricted prompt"):
        held_out_set([e for e in test_rows if not e.prompt_restricted], arsenal, 0, 150)
    with pytest.raises(NoData, match="no harmless prompt"):
        held_out_set([e for e in test_rows if e.prompt_restricted], arsenal, 0, 150)


def some(rows: list[Example], families: tuple[str, ...]) -> HeldOut:
    return HeldOut(tuple(replace(row, family=families[n % len(families)]) for n, row in enumerate(rows)), "x")


@settings(max_examples=12)
@given(st.data())
def test_figures_by_family_add_up_to_those_over_all(test_rows: list[Example], data: st.DataObject) -> None:
    held = some(test_rows, ("a", "b"))
    scores = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.7, 1.0]), min_size=len(test_rows), max_size=len(test_rows))))
    found = report(held, scores, 0.5, None, 0)
    y = held.labels
    assert found.rise is None
    assert found.all.restricted == y.sum()
    assert found.all.harmless == (~y).sum()
    assert found.all.recall.value == np.mean(scores[y] >= 0.5)
    assert found.all.fpr.value == np.mean(scores[~y] >= 0.5)
    assert found.recall_at_1pct.value == found.all.recall_at_1pct.value == pytest.approx(recall_at_fpr(y, scores, 0.01))
    assert np.mean(scores[~y] > found.threshold_at_1pct) <= 0.01
    for which in ("recall_at_1pct", "recall"):
        parts = [(getattr(f, which).value, f.restricted) for f in found.families.values()]
        assert sum(v * n for v, n in parts) / y.sum() == pytest.approx(getattr(found.all, which).value)
    for interval in (found.recall_at_1pct, found.all.recall, found.all.fpr):
        assert interval.low is not None
        assert interval.high is not None
        assert interval.value is not None
        assert interval.low <= interval.value <= interval.high


def test_the_rise_is_paired(test_rows: list[Example]) -> None:
    held = some(test_rows, ("a",))
    y = held.labels
    rng = np.random.default_rng(3)
    first = rng.normal(size=len(y)) + 1.5 * y
    same = report(held, first, 0.0, first, 0).rise
    assert same is not None
    assert (same.value, same.low, same.high) == (0, 0, 0), "against itself there is nothing to estimate"
    better = report(held, first + 3 * y, 0.0, first, 0)
    assert better.rise is not None
    assert better.rise.low is not None
    assert better.rise.low > 0
    at = partial(recall_at_fpr, rate=0.01)
    assert better.rise.value == pytest.approx(at(y, first + 3 * y) - at(y, first))
    assert report(held, first + 3 * y, 0.0, first, 0) == better


def test_a_family_with_one_label_only_has_no_figure_for_the_other(test_rows: list[Example]) -> None:
    rows = tuple(replace(row, family="a" if row.prompt_restricted else "b") for row in test_rows)
    found = report(HeldOut(rows, "x"), np.linspace(0, 1, len(rows)), 0.5, None, 0)
    assert found.families["a"].fpr.value is None
    assert found.families["b"].recall.value is None
    assert found.families["b"].recall_at_1pct.n == 0
