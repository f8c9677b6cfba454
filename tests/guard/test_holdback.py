"""The hold-back: nothing leaves before all its tokens passed, and after the first that did not nothing leaves any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.guard.holdback import HoldBack
from charter.models.segments import Segmenter, cut

Chunker = Callable[[st.DataObject, str], list[str]]


class FlagsAt:
    """A checker whose tokens are segments; the one with the given number does not pass, those after it would again."""

    def __init__(self, flagged: int | None) -> None:
        self.flagged, self.judged, self.calls = flagged, list[str](), 0
        self._segmenter = Segmenter()

    def push(self, text: str) -> Iterable[tuple[str, bool]]:
        return self._judge(self._segmenter.push(text))

    def flush(self) -> Iterable[tuple[str, bool]]:
        return self._judge([*self._segmenter.flush(), ""])

    def _judge(self, segments: list[str]) -> list[tuple[str, bool]]:
        self.calls += 1
        self.judged += segments
        first = len(self.judged) - len(segments)
        return [(s, first + n != self.flagged) for n, s in enumerate(segments)]


class Breaks(FlagsAt):
    """Fails at the second call."""

    def _judge(self, segments: list[str]) -> list[tuple[str, bool]]:
        if self.calls:
            raise RuntimeError("scorer broke")
        return super()._judge(segments)


@given(data=st.data())
def test_no_character_leaves_unjudged_and_none_from_the_flag_on(data: st.DataObject, texts: Any, chunked: Chunker) -> None:
    text = data.draw(texts)
    flagged = data.draw(st.none() | st.integers(0, len(cut(text))))
    checker = FlagsAt(flagged)
    holdback, released, received = HoldBack(checker), "", ""
    for chunk in chunked(data, text):
        received += chunk
        released += holdback.push(chunk)
        assert "".join(checker.judged).startswith(released)
        assert received.startswith(released)
        assert holdback.released == len(released)
    released += holdback.flush()
    assert released == "".join([*cut(text), ""][:flagged])
    assert holdback.closed == (flagged is not None)


@given(data=st.data())
def test_what_was_judged_is_either_released_or_withheld(data: st.DataObject, texts: Any, chunked: Chunker) -> None:
    text = data.draw(texts)
    checker = FlagsAt(data.draw(st.none() | st.integers(0, len(cut(text)))))
    holdback = HoldBack(checker)
    released = "".join([holdback.push(chunk) for chunk in chunked(data, text)] + [holdback.flush()])
    assert released + "".join(holdback.withheld) == "".join(checker.judged)
    assert bool(holdback.withheld) == holdback.closed


def test_a_closed_hold_back_asks_its_checker_nothing_more() -> None:
    checker = FlagsAt(1)
    holdback = HoldBack(checker)
    assert holdback.push("one two three four five") == "one"
    calls = checker.calls
    assert [holdback.push(" six seven"), holdback.push("x" * 1_000), holdback.flush()] == ["", "", ""]
    assert checker.calls == calls
    assert holdback.withheld == [" two", " three", " four"]


def test_the_closing_mark_can_still_flag_and_then_the_open_segment_is_all_that_left_before() -> None:
    holdback = HoldBack(FlagsAt(2))
    assert holdback.push("one two") == "one"
    assert holdback.flush() == " two"
    assert holdback.closed


def test_text_that_a_broken_checker_took_never_leaves() -> None:
    holdback = HoldBack(Breaks(None))
    assert holdback.push("one two") == "one"
    with pytest.raises(RuntimeError):
        holdback.push(" three four")
    with pytest.raises(RuntimeError):
        holdback.flush()
    assert holdback.released == 3


@given(data=st.data(), lookahead=st.integers(0, 5))
def test_with_lookahead_a_token_waits_for_those_after_it_and_a_flag_takes_it_back(
    data: st.DataObject, lookahead: int, texts: Any, chunked: Chunker
) -> None:
    text = data.draw(texts)
    flagged = data.draw(st.none() | st.integers(0, len(cut(text))))
    checker = FlagsAt(flagged)
    holdback, released = HoldBack(checker, lookahead), ""
    for chunk in chunked(data, text):
        released += holdback.push(chunk)
        passed = checker.judged[:flagged]
        if flagged is None or flagged >= len(checker.judged):
            assert released == "".join(passed[: max(0, len(passed) - lookahead)])
    released += holdback.flush()
    whole = [*cut(text), ""]
    assert released == "".join(whole if flagged is None else whole[: max(0, flagged - lookahead)])
    assert released + "".join(holdback.withheld) == "".join(checker.judged)
    assert holdback.released == len(released)
