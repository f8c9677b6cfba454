"""The screen: its running state is the batch features, its arithmetic the formula in the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.models.encoder import Piece
from charter.models.screen import BUCKETS, DECAY, Screen, features, turn_features
from charter.models.segments import cut

Chunker = Callable[[st.DataObject, str], list[str]]


@pytest.fixture(scope="module")
def screen() -> Screen:
    rng = np.random.default_rng(3)
    return Screen({"prompt": rng.normal(size=(BUCKETS, 3)).astype(np.float32)}, {"prompt": np.array([0.5, -1.0, 2.0], np.float32)})


def _pieces(text: str) -> list[Piece]:
    return [Piece((1,) * (1 + len(s) % 3), s) for s in cut(text)]


@given(data=st.data())
def test_the_running_state_at_the_end_of_a_turn_is_the_batch_features_times_the_weights(
    data: st.DataObject, texts: Any, screen: Screen
) -> None:
    text = data.draw(texts)
    z = screen.turn("prompt").feed([*_pieces(text), Piece((2,), "")])[-1]
    row = turn_features(cut(text))
    weights, bias = screen.weights["prompt"], screen.biases["prompt"]
    expected = bias + sum((value * weights[bucket].astype(float) for bucket, value in row.items()), np.zeros(3))
    np.testing.assert_allclose(z, expected, atol=1e-4)


@settings(max_examples=50)
@given(data=st.data())
def test_after_every_segment_the_logits_are_those_of_the_turn_so_far(data: st.DataObject, texts: Any, screen: Screen) -> None:
    pieces = _pieces(data.draw(texts))
    turn = screen.turn("prompt")
    for number, piece in enumerate(pieces, 1):
        got = turn.feed([piece])
        whole = screen.turn("prompt").feed(pieces[:number])
        assert got.shape == (len(piece.ids), 3)
        np.testing.assert_array_equal(got, np.repeat(whole[-1:], len(piece.ids), axis=0))


@settings(max_examples=50)
@given(data=st.data())
def test_the_state_is_the_formula_of_the_module(data: st.DataObject, texts: Any, screen: Screen) -> None:
    segments = cut(data.draw(texts))
    sums, counts, before = [], [], ""
    for segment in segments:
        found, before = features(segment, before)
        sums.append((found.signs[:, None] * screen.weights["prompt"][found.buckets]).sum(0))
        counts.append(len(found.buckets))
    ages = DECAY ** np.arange(len(segments))[::-1]
    expected = screen.biases["prompt"] + (ages @ np.array(sums).reshape(-1, 3)) / max(ages @ np.array(counts), 1.0) ** 0.5
    z = screen.turn("prompt").feed([*_pieces("".join(segments)), Piece((2,), "")])[-1]
    np.testing.assert_allclose(z, expected, atol=1e-4)


def test_the_features_of_a_word_are_itself_its_pair_and_its_four_letter_runs() -> None:
    names = ["lock", "old lock", "#<loc", "#lock", "#ock>"]
    found, before = features(" Lock!", "old")
    hashes = [crc32(name.encode()) for name in names]
    assert found.buckets.tolist() == [h % BUCKETS for h in hashes]
    assert found.signs.tolist() == [1.0 if h >> 16 & 1 else -1.0 for h in hashes]
    assert before == "lock"


def test_a_disguised_word_has_the_features_of_the_plain_one() -> None:
    plain, _ = features(" attack", "")
    for disguised in (" 4tt4ck", " ATTACK", " a.t.t.a.c.k", " att\u200back", " аttаck"):
        np.testing.assert_array_equal(features(disguised, "")[0].buckets, plain.buckets)


@pytest.mark.parametrize("segment", [" ", "\n\n", " ...", "\u200b", "—"[:0]])
def test_a_segment_without_a_word_leaves_the_word_before_in_place(segment: str) -> None:
    found, before = features(segment, "lock")
    assert (len(found.buckets), before) == (0, "lock")


def test_an_empty_turn_has_no_features_and_no_tokens_no_logits(screen: Screen) -> None:
    assert turn_features([]) == {}
    assert screen.turn("prompt").feed([]).shape == (0, 3)
    np.testing.assert_array_equal(screen.turn("prompt").feed([Piece((1,), "")]), screen.biases["prompt"][None])
