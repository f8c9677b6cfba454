"""What rounding does: planted differences are found, and nothing is no answer."""

from __future__ import annotations

import numpy as np
import pytest

from charter.errors import NoData
from rounding import moved


def test_planted_differences_are_found() -> None:
    before = np.linspace(0, 0.9, 10)
    after = before + np.array([0.01] * 9 + [-0.2])
    found = moved((before, after), (before > 0.5, after > 0.75))
    assert (found.median, found.largest) == (pytest.approx(0.01), pytest.approx(0.2))
    assert found.flipped.n == 10
    assert found.flipped.value == int(((before > 0.5) != (after > 0.75)).sum()) / 10
    assert found.flipped.low < found.flipped.value < found.flipped.high


def test_nothing_scored_is_an_error() -> None:
    with pytest.raises(NoData, match="--sets"):
        moved(([], []), ([], []))
