from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from charter.synthesis.twins import Twins, jaccard, numbered, shingles

SETS = st.lists(st.frozensets(st.integers(0, 12), max_size=9), max_size=25)


@given(SETS, st.frozensets(st.integers(0, 14), max_size=9), st.sampled_from([0.1, 1 / 3, 0.5, 0.65, 0.8, 1.0]))
def test_it_finds_all_that_a_comparison_with_each_finds_and_no_more(
    sets: list[frozenset[int]], query: frozenset[int], threshold: float
) -> None:
    found = list(Twins(sets, threshold).of(query))
    assert found == [(n, jaccard(query, own)) for n, own in enumerate(sets) if jaccard(query, own) >= threshold]


@given(st.text(max_size=60))
def test_hashes_stand_for_runs_of_words(text: str) -> None:
    assert len(numbered(text)) == len(shingles(text))
    assert numbered(text) == numbered(f" {text}\n")
    assert all(0 <= n < 2**64 for n in numbered(text))


@given(st.frozensets(st.integers(), max_size=5), st.frozensets(st.integers(), max_size=5))
def test_similarity_goes_both_ways_and_is_one_for_the_same_alone(a: frozenset[int], b: frozenset[int]) -> None:
    assert jaccard(a, b) == jaccard(b, a)
    assert (jaccard(a, b) == 1) == (a == b != frozenset())
