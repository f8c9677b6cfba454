"""The first glance: every word counts in some span, and what is added to a text takes nothing from what was there."""

from __future__ import annotations

import hearing
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charter.models.glance import SPAN, STEP, spans
from charter.models.sentence import SentenceEncoder

IDS = st.lists(st.integers(0, 999), max_size=3 * SPAN)


@pytest.fixture(scope="module")
def encoder(tiny_bert: str) -> SentenceEncoder:
    return SentenceEncoder(tiny_bert)


def marked(ids: list[int]) -> list[int]:
    return [1, *ids, 2]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(IDS, max_size=4))
def test_spans_are_means_of_word_vectors_that_overlap_by_half_and_reach_the_end(texts: list[list[int]], encoder: SentenceEncoder) -> None:
    room = encoder.for_training().config.vocab_size
    texts = [[n % room for n in ids] for ids in texts]
    means, owner = spans(encoder, [marked(ids) for ids in texts])
    table = encoder.for_training().get_input_embeddings().weight.detach().numpy()
    for number, ids in enumerate(texts):
        own, words = means[owner == number], table[ids]
        if len(ids) <= SPAN:
            expected = [words.mean(0) if ids else np.zeros(encoder.width)]
        else:
            starts = [*range(0, len(ids) - SPAN, STEP), len(ids) - SPAN]
            expected = [words[start : start + SPAN].mean(0) for start in starts]
        np.testing.assert_allclose(own, expected, atol=1e-5)
    assert owner.tolist() == sorted(owner.tolist())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 999), min_size=SPAN + 1, max_size=3 * SPAN), more=IDS)
def test_nothing_that_is_written_after_a_text_hides_its_whole_spans(ids: list[int], more: list[int], encoder: SentenceEncoder) -> None:
    room = encoder.for_training().config.vocab_size
    ids, more = ([n % room for n in own] for own in (ids, more))
    ids = ids[: (len(ids) - SPAN) // STEP * STEP + SPAN]
    before, after = hearing.glance(encoder.width).of(encoder, [marked(ids), marked(ids + more)])
    assert after >= before - 1e-4


def test_windows_are_looked_at_one_by_one(encoder: SentenceEncoder) -> None:
    glance = hearing.glance(encoder.width)
    windows = [window for text in ("a lock", "Tulips by the window. " * 80, "") for window in encoder.rows(text)]
    together = glance.of(encoder, windows)
    np.testing.assert_allclose(together, [glance.of(encoder, [window])[0] for window in windows], atol=1e-5)
    assert len(set(together.tolist())) > 2
    assert glance.of(encoder, []).shape == (0,)


def test_in_bfloat16_it_sees_nearly_the_same(encoder: SentenceEncoder, tiny_bert: str) -> None:
    hurried = SentenceEncoder(tiny_bert)
    if not hurried.hurry():
        pytest.skip("the processor has no instructions for bfloat16")
    ids = list(range(3, 40))
    np.testing.assert_allclose(hurried.words(ids), encoder.words(ids), rtol=1e-2)
