from __future__ import annotations

import pytest

from charter.errors import DataError
from charter.evaluation.upstream import Upstream, _listed, upstream


def test_every_listed_upstream_has_a_size_and_a_source() -> None:
    for name, row in _listed().items():
        found = upstream(name)
        assert found.flops_per_token == 2 * float(row["parameters"]) > 0
        assert len(found.source) > 10


def test_a_number_of_weights_is_an_upstream() -> None:
    assert upstream("8e9", 40.0) == Upstream("8e+09 weights", 8e9, "as given", 40.0)


@pytest.mark.parametrize("asked", ["", "nobody", "-1", "0", "nan", "inf"])
def test_what_is_neither_is_refused_in_one_sentence(asked: str) -> None:
    with pytest.raises(DataError, match="llama-3.1-8b"):
        upstream(asked)
