from __future__ import annotations

import pytest

from charter.errors import DataError
from charter.evaluation.upstream import Upstream, _listed, upstream


def test_every_listed_upstream_has_a_size_and_a_source() -> None:
    for name, row in _listed().items():
        found = upstream(name)
        assert found.flops_per_token == 2 * float(row["parameters"]) > 0
        assert "not checked" not in found.source
        assert name == "embedded" or "/" in found.source  # a page to look it up


@pytest.mark.parametrize(
    ("name", "blocks", "width", "between", "keys", "ends"),
    [
        ("embedded", 30, 576, 1_536, 3 / 9, 0),
        ("smollm2-1.7b", 24, 2_048, 8_192, 1, 49_152),
        ("mistral-7b-v0.3", 32, 4_096, 14_336, 8 / 32, 2 * 32_768),
        ("llama-3.1-8b", 32, 4_096, 14_336, 8 / 32, 2 * 128_256),
        ("llama-3.3-70b", 80, 8_192, 28_672, 8 / 64, 2 * 128_256),
    ],
)
def test_a_size_is_that_of_its_shape(name: str, blocks: int, width: int, between: int, keys: float, ends: int) -> None:
    """Llama's blocks: four maps of attention, those of keys and values narrower, and three of the feed-forward part; vocabulary at the ends."""
    counted = blocks * (2 * width**2 * (1 + keys) + 3 * width * between) + ends * width
    assert upstream(name).parameters == pytest.approx(counted, rel=0.01)


def test_a_number_of_weights_is_an_upstream() -> None:
    assert upstream("8e9", 40.0) == Upstream("8e+09 weights", 8e9, "as given", 40.0)


@pytest.mark.parametrize("asked", ["", "nobody", "-1", "0", "nan", "inf"])
def test_what_is_neither_is_refused_in_one_sentence(asked: str) -> None:
    with pytest.raises(DataError, match="llama-3.1-8b"):
        upstream(asked)
