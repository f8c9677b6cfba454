"""What `charter serve --precision float16` does to a guard's scores and verdicts, on labelled public data.

    .venv/bin/python benchmarks/rounding.py general --data FOLDER --sets xstest jbb_behaviors --limit 100

Every exchange is scored by the same guard before and after its weights are rounded. A score is the highest probability over the tokens of
what is judged. Exchanges are scored whole: rounded weights give the same scores in whatever steps a text comes (`tests/models/test_halved.py`).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from charter.errors import NoData
from charter.evaluation.datasets import load_folder, sample
from charter.evaluation.run import evaluate
from charter.guard.folder import load
from charter.guard.precision import at_precision
from charter.guard.shipped import place
from charter.statistics import Interval, clopper_pearson


@dataclass(frozen=True, slots=True)
class Moved:
    """How far scores and verdicts moved."""

    median: float
    largest: float
    """Of the absolute differences."""
    flipped: Interval
    """Share of verdicts that changed; its `n` is the number of exchanges."""


def moved(scores: tuple[ArrayLike, ArrayLike], flagged: tuple[ArrayLike, ArrayLike]) -> Moved:
    """Compare the same exchanges before and after.

    Raises:
        NoData: there are none.
    """
    before, after = (np.asarray(own, float) for own in scores)
    if not before.size:
        raise NoData("no exchange was scored, so there is nothing to compare; name other --sets")
    apart = np.abs(after - before)
    flips = int((np.asarray(flagged[0]) != np.asarray(flagged[1])).sum())
    return Moved(float(np.median(apart)), float(apart.max()), clopper_pearson(flips, before.size))


def main() -> None:
    """Score twice and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path, nargs="?", default=Path("general"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="*", help="names of sets; all of them if left out")
    parser.add_argument("--limit", type=int, default=100, help="rows of a set")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sets = [s for s in load_folder(asked.data) if not asked.sets or s.name in asked.sets]
    sets = sample(sets, asked.limit, asked.seed)
    for point in ("quiet", "balanced"):
        guard = load(place(asked.guard), point=point)
        first, second = evaluate(guard, sets).sets, evaluate(at_precision(guard, "float16"), sets).sets
        scores, flagged = (
            tuple(np.concatenate([getattr(s, name) for s in own]) for own in (first, second)) for name in ("scores", "flagged")
        )
        found = moved(scores, flagged)
        share = found.flipped
        print(
            f"{point}: n {share.n}, seed {asked.seed}: scores moved by {found.median:.1e} (median), {found.largest:.1e} (largest); "
            f"{share.value * share.n:.0f} verdicts flipped ({share.value:.2%} [{share.low:.2%}, {share.high:.2%}]), "
            f"{int(flagged[0].sum())} flagged before"
        )


if __name__ == "__main__":
    main()
