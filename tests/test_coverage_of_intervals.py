"""95 % intervals hold the truth in about 95 % of simulated samples. Fixed seeds, so no luck: 250 samples have a standard error of 1.4 points.

`benchmarks/coverage_of_intervals.py` does the same with more samples and settings.
"""

from __future__ import annotations

import pytest

from coverage_of_intervals import CASES, coverage

SAMPLES = 250


@pytest.mark.parametrize(
    "name",
    ["proportion, n = 300, 20 %", "clustered proportion, 100 clusters of 1 to 5", "AUROC, 100 + 100", "clustered AUROC, 80 + 80 of 1 to 4"],
)
def test_the_interval_covers_as_often_as_it_says(name: str) -> None:
    assert 0.925 <= coverage(CASES[name], SAMPLES, seed=1).value <= 0.985


def test_an_interval_that_forgets_its_clusters_covers_too_seldom() -> None:
    assert coverage(CASES["clustered proportion, clusters forgotten"], SAMPLES, seed=1).value < 0.9
