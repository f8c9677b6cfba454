from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from charter.evaluation.datasets import Item
from charter.evaluation.run import Outcome, Results, SetResult
from charter.records import Exchange, Turn, Verdict
from charter.report.worst import LONGEST, false_alarms, misses

ROWS = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), max_size=30)


def results(rows: list[tuple[bool, bool, float]], text: str = "x") -> Results:
    items = tuple(Item(Exchange(str(n), (Turn("user", text),)), positive, "s") for n, (positive, _, _) in enumerate(rows))
    outcomes = tuple(Outcome(Verdict(flagged, score, None, None), 1) for _, flagged, score in rows)
    return Results("g", 0, (SetResult("a", "prompt", items, outcomes),), {})


@given(ROWS, st.integers(1, 9))
def test_only_mistakes_are_shown_and_the_surest_first(rows: list[tuple[bool, bool, float]], most: int) -> None:
    found = results(rows)
    for cases, positive, sign in ((misses(found, most), True, 1), (false_alarms(found, most), False, -1)):
        wrong: list[Any] = [(score, str(n)) for n, (p, flagged, score) in enumerate(rows) if p == positive and flagged != p]
        assert len(cases) == min(most, len(wrong))
        assert {(case.score, case.id) for case in cases} <= set(wrong)
        shown = [sign * case.score for case in cases]
        assert shown == sorted(sign * score for score, _ in wrong)[:most]


def test_a_long_text_is_cut_and_says_so() -> None:
    (case,) = misses(results([(True, False, 0.2)], "y" * (LONGEST + 7)))
    assert (len(case.text), case.cut) == (LONGEST, 7)
