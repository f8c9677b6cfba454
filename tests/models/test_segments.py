"""Segments: cut anywhere in time, the same pieces come out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from charter.models.segments import LONGEST, Segmenter, cut

Chunker = Callable[[st.DataObject, str], list[str]]


@given(data=st.data())
def test_segments_concatenate_to_the_text_and_none_is_empty_or_longer_than_the_limit(data: st.DataObject, texts: Any) -> None:
    text = data.draw(texts)
    pieces = cut(text)
    assert "".join(pieces) == text
    assert all(1 <= len(piece) <= LONGEST for piece in pieces)


@given(data=st.data())
def test_chunking_never_changes_the_segments(data: st.DataObject, texts: Any, chunked: Chunker) -> None:
    text = data.draw(texts)
    segmenter = Segmenter()
    pieces = [piece for chunk in chunked(data, text) for piece in segmenter.push(chunk)]
    assert pieces + segmenter.flush() == cut(text)


@given(data=st.data())
def test_what_came_in_is_given_out_or_held_and_at_most_one_segment_is_held(data: st.DataObject, texts: Any, chunked: Chunker) -> None:
    segmenter = Segmenter()
    received = out = ""
    for chunk in chunked(data, data.draw(texts)):
        received += chunk
        out += "".join(segmenter.push(chunk))
        assert out + segmenter.held == received
        assert len(segmenter.held) <= LONGEST


@given(data=st.data())
def test_a_cut_falls_only_where_a_word_ends_or_a_long_run_is_full(data: st.DataObject, texts: Any) -> None:
    pieces = cut(data.draw(texts))
    for left, right in pairwise(pieces):
        assert len(left) == LONGEST or (not left[-1].isspace() and right[0].isspace())


def test_white_space_leads_its_word_and_closing_white_space_stands_alone() -> None:
    assert cut("\n Go  home. \n") == ["\n Go", "  home.", " \n"]
    assert cut("") == []


def test_a_flushed_segmenter_starts_afresh() -> None:
    segmenter = Segmenter()
    assert segmenter.push("half") == []
    assert segmenter.flush() == ["half"]
    assert segmenter.held == ""
    assert segmenter.flush() == []
    assert segmenter.push(" and more") == [" and"]
