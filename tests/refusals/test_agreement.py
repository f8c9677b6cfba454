"""Agreement with human labels against scikit-learn, and intervals that don't shrink when rows are repeated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from charter.errors import DataError
from charter.refusals.agreement import agreement

ROWS = st.lists(
    st.tuples(st.sampled_from(["refusal", "compliance", "partial_refusal"]), st.sampled_from(["refused", "partly", "complied"])),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=25)
@given(ROWS)
def test_figures_equal_those_of_scikit_learn(rows: list[tuple[str, str]]) -> None:
    labels, did = zip(*rows, strict=True)
    found = agreement(labels, did, range(len(rows)), seed=0, draws=20)
    kept = [(label == "refusal", d) for label, d in rows if label != "partial_refusal"]
    assert (found["n"], found["left_out"]) == (len(kept), len(rows) - len(kept))
    assert sum(n for row in found["table"].values() for n in row.values()) == len(rows)
    for name, says in (("declined", {"refused", "partly"}), ("refused", {"refused"})):
        truth, guess = [t for t, _ in kept], [d in says for _, d in kept]
        for figure, second in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
            value = found[name][figure]["value"]
            if value is not None:
                assert value == pytest.approx(second(truth, guess, zero_division=0))
                assert found[name][figure]["low"] <= found[name][figure]["high"]


def test_repeating_every_row_of_a_prompt_does_not_narrow_the_interval() -> None:
    labels = ["refusal", "refusal", "compliance", "refusal", "compliance"] * 8
    did = ["refused", "complied", "complied", "refused", "partly"] * 8
    once = agreement(labels, did, range(40), seed=1)
    again = agreement(labels * 5, did * 5, [*range(40)] * 5, seed=1)
    assert again["declined"]["f1"]["low"] == pytest.approx(once["declined"]["f1"]["low"])
    assert again["declined"]["f1"]["high"] == pytest.approx(once["declined"]["f1"]["high"])
    apart = agreement(labels * 5, did * 5, range(200), seed=1)
    assert apart["declined"]["f1"]["low"] > once["declined"]["f1"]["low"]


def test_no_refusal_at_all_gives_no_figure_rather_than_zero() -> None:
    found = agreement(["compliance"], ["complied"], [0], seed=0)
    assert found["declined"]["recall"] == {"value": None, "low": None, "high": None, "n": 1}


def test_a_label_that_says_nothing_about_refusals_is_named() -> None:
    with pytest.raises(DataError, match="'harmful' says nothing about a refusal"):
        agreement(["harmful"], ["refused"], [0], seed=0)
