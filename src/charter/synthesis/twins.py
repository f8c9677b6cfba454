"""Which texts share most of their runs of words: an exact search, where a sketch would miss a pair now and then.

Two sets with a Jaccard similarity of at least t share an element among the rarest (1 - t) of either. So only those are
indexed, which keeps the candidates few; each candidate is then compared in full.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from charter.synthesis.dedupe import shingles

Shingles = frozenset[int]


def numbered(text: str) -> Shingles:
    """64-bit hashes of a text's word 3-shingles, the same in every process."""
    return frozenset(int.from_bytes(hashlib.blake2b(s.encode("utf-8", "surrogatepass"), digest_size=8).digest()) for s in shingles(text))


def jaccard(a: Shingles, b: Shingles) -> float:
    """Shared elements over all elements, 0 to 1; 0 for two empty sets."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


class Twins:
    """Finds, among known sets, those with a similarity of at least `threshold` (above 0) to another. Keeps hashes, no texts."""

    def __init__(self, sets: Iterable[Shingles], threshold: float) -> None:
        self._threshold = threshold
        self._sets: list[NDArray[np.uint64]] = [np.fromiter(s, np.uint64, len(s)) for s in sets]
        self._often = Counter(n for values in self._sets for n in values.tolist())
        self._index: dict[int, list[int]] = defaultdict(list)
        for place, values in enumerate(self._sets):
            for number in self._rarest(values.tolist()):
                self._index[number].append(place)

    def of(self, query: Shingles) -> Iterator[tuple[int, float]]:
        """Places of the similar sets, ascending, with their similarity."""
        places = {place for number in self._rarest(query) for place in self._index.get(number, ())}
        for place in sorted(places):
            size = len(self._sets[place])
            if min(size, len(query)) >= self._threshold * max(size, len(query)) - 1e-9:
                value = jaccard(query, frozenset(self._sets[place].tolist()))
                if value >= self._threshold:
                    yield place, value

    def _rarest(self, values: Iterable[int]) -> list[int]:
        """The elements of which a twin must have at least one."""
        order = sorted(values, key=lambda n: (self._often.get(n, 0), n))
        return order[: len(order) - math.ceil(self._threshold * len(order) - 1e-9) + 1]
