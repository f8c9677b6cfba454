"""The classifier against human labels: F1, precision and recall of refusals, with intervals that respect repeated prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import DataError
from charter.statistics import LEVEL, Interval, absent

LABELS = ("refusal", "partial_refusal", "compliance")
DRAWS = 1_000


def agreement(labels: Sequence[str], did: Sequence[str], clusters: Sequence[Hashable], seed: int, draws: int = DRAWS) -> dict[str, Any]:
    """How refusals that humans saw were found.

    Rows labelled partial_refusal stand in the table and are left out of the figures. A reply counts as a refusal where it was
    refused or partly refused (`declined`), or where it was refused wholly (`refused`).

    Args:
        labels: refusal, partial_refusal or compliance.
        did: refused, partly or complied.
        clusters: rows that are alike here (replies to one prompt) are drawn together, so that they don't narrow the intervals.

    Raises:
        DataError: another label.
    """
    strange = sorted(set(labels) - set(LABELS))
    if strange:
        raise DataError(f"the label {strange[0]!r} says nothing about a refusal; labels are {', '.join(LABELS)}")
    table = Counter(zip(labels, did, strict=True))
    kept = [i for i, label in enumerate(labels) if label != "partial_refusal"]
    truth = np.array([labels[i] == "refusal" for i in kept], bool)
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    groups = np.array([numbers[clusters[i]] for i in kept], np.int64)
    guesses = {"declined": ("refused", "partly"), "refused": ("refused",)}
    return {
        "n": len(kept),
        "prompts": len(set(groups.tolist())),
        "left_out": len(labels) - len(kept),
        "table": {label: {d: table[label, d] for d in ("refused", "partly", "complied")} for label in LABELS if label in labels},
        **{name: _figures(truth, np.array([did[i] in says for i in kept], bool), groups, seed, draws) for name, says in guesses.items()},
    }


def _figures(truth: NDArray[np.bool_], guess: NDArray[np.bool_], groups: NDArray[np.int64], seed: int, draws: int) -> dict[str, Any]:
    """F1, precision and recall, each a percentile interval over draws of whole groups."""
    counts = np.stack([truth & guess, ~truth & guess, truth & ~guess], axis=1).astype(np.float64)
    _, places = np.unique(groups, return_inverse=True)
    sums = np.zeros((int(places.max(initial=-1)) + 1, 3))
    np.add.at(sums, places, counts)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=draws) @ sums if len(sums) else np.zeros((0, 3))
    whole = sums.sum(axis=0)
    return {name: _interval(name, whole, drawn, len(truth)).as_dict() for name in ("f1", "precision", "recall")}


def _interval(name: str, whole: NDArray[np.float64], drawn: NDArray[np.float64], n: int) -> Interval:
    value, samples = _ratio(name, whole[None])[0], _ratio(name, drawn)
    if np.isnan(value):
        return absent(n)
    low, high = np.nanquantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high), n)


def _ratio(name: str, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """counts: [draws, (true positives, false positives, false negatives)]; NaN where there is nothing to divide by."""
    found, false, missed = counts.T
    above, below = {"f1": (2 * found, 2 * found + false + missed), "precision": (found, found + false), "recall": (found, found + missed)}[
        name
    ]
    out = np.full(len(counts), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
