"""How often evaluation's 95 % intervals hold the truth, by simulation.

    .venv/bin/python benchmarks/coverage_of_intervals.py [--samples 4000] [--seed 0] [--only AUROC]

Each case draws samples from a law whose figure is known and counts the intervals that hold it; the count has an exact interval of its own.
Clusters share a normal effect on the probit scale, so that items of a cluster resemble each other (intraclass correlation about 0.3).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from charter import statistics
from charter.statistics import Interval

Case = Callable[[np.random.Generator], tuple[Interval, float]]
"""Draws a sample; gives its interval and the true value."""
SHARED = 0.5
"""Variance of a cluster's effect beside 1 - SHARED of each item's own."""
SEPARATION = 1.2
"""Distance of the two classes' means in standard deviations: AUROC = Phi(SEPARATION / sqrt(2)) = .80."""


def proportion(n: int, rate: float) -> Case:
    """Independent items."""
    return lambda rng: (statistics.clopper_pearson(int(rng.binomial(n, rate)), n), rate)


def clustered(k: int, most: int, rate: float, forget: bool = False) -> Case:
    """k clusters of 1 to `most` items whose hits are correlated; `forget`: the exact interval as if they were not."""

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        groups = np.repeat(np.arange(k), rng.integers(1, most + 1, k))
        hits = _correlated(rng, groups) < norm.ppf(rate)
        found = statistics.clopper_pearson(int(hits.sum()), len(hits)) if forget else statistics.clustered_proportion(hits, groups)
        return found, rate

    return draw


def ranking(k: int, most: int) -> Case:
    """AUROC of k positive and k negative clusters of 1 to `most` items."""

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        groups = np.repeat(np.arange(2 * k), rng.integers(1, most + 1, 2 * k))
        labels = groups < k
        scores = _correlated(rng, groups) + SEPARATION * labels
        found = statistics.bootstrap(statistics.auroc, labels, scores, int(rng.integers(1 << 30)), groups=groups if most > 1 else None)
        return found, float(norm.cdf(SEPARATION / 2**0.5))

    return draw


CASES: dict[str, Case] = {
    "proportion, n = 300, 20 %": proportion(300, 0.2),
    "proportion, n = 1,000, 50 %": proportion(1_000, 0.5),
    "proportion, n = 1,000, 1 %": proportion(1_000, 0.01),
    "clustered proportion, 100 clusters of 1 to 5": clustered(100, 5, 0.3),
    "clustered proportion, 300 clusters of 1 to 3": clustered(300, 3, 0.1),
    "clustered proportion, 30 clusters of 1 to 10": clustered(30, 10, 0.5),
    "clustered proportion, clusters forgotten": clustered(100, 5, 0.3, forget=True),
    "AUROC, 100 + 100": ranking(100, 1),
    "AUROC, 30 + 30": ranking(30, 1),
    "clustered AUROC, 80 + 80 of 1 to 4": ranking(80, 4),
}


def coverage(case: Case, samples: int, seed: int) -> Interval:
    """Share of samples whose interval holds the truth, with its exact interval."""
    held = 0
    for number in range(samples):
        found, truth = case(np.random.default_rng([seed, number]))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    return statistics.clopper_pearson(held, samples)


def _correlated(rng: np.random.Generator, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard normal, the same share of it for a cluster."""
    own, common = rng.normal(size=len(groups)), rng.normal(size=int(groups.max()) + 1)
    return np.sqrt(SHARED) * common[groups] + np.sqrt(1 - SHARED) * own


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the cases whose name holds this")
    asked = parser.parse_args()
    for name, case in CASES.items():
        if asked.only not in name:
            continue
        found = coverage(case, asked.samples, asked.seed)
        print(f"| {name} | {found.value:.1%} | {found.low:.1%} to {found.high:.1%} |", flush=True)


if __name__ == "__main__":
    main()
