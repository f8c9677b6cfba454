import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.statistics import auroc
from study.data import Rows
from study.planted import WORDS, planted
from study.views import part


@given(st.integers(0, 2**16))
def test_whatever_sees_one_part_alone_has_an_auroc_of_exactly_a_half(salt: int) -> None:
    rows = planted(list(WORDS[:12]), "planted")
    for seen in ("input", "output"):
        shown, _ = part(rows, seen)  # type: ignore[arg-type]
        scores = [hash((salt, *(t.content for t in e.turns))) for e in shown.exchanges]
        assert auroc(rows.labels, scores) == 0.5


def test_both_parts_together_tell_the_label() -> None:
    rows = planted(list(WORDS[:12]), "planted")
    said = [sum(word in turn.content.split() or f"{word}," in turn.content for turn in e.turns for word in [code]) == 2
            for e in rows.exchanges for code in [e.id.split("-")[2]]]  # fmt: skip
    assert np.array_equal(np.array(said), rows.labels)


def test_no_word_is_in_training_and_test_and_parents_are_pairs() -> None:
    first, second = planted(list(WORDS[:8]), "a"), planted(list(WORDS[8:16]), "b")
    assert len(set(WORDS)) == len(WORDS)
    assert not {w for p in first.parents for w in p.split("-")} & {w for p in second.parents for w in p.split("-")}
    assert len(first.labels) == 4 * 24


@pytest.mark.parametrize(("seen", "view", "turns"), [("input", "prompt", 1), ("output", "exchange", 1), ("exchange", "exchange", 2)])
def test_each_view_is_shown_its_part(seen: str, view: str, turns: int) -> None:
    rows: Rows = planted(list(WORDS[:4]), "planted")
    shown, how = part(rows, seen)  # type: ignore[arg-type]
    assert how == view
    assert {len(e.turns) for e in shown.exchanges} == {turns}
    assert all((e.reply is None) == (view == "prompt") for e in shown.exchanges)
