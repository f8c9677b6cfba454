"""How alike two texts are, and an exact search for those that share most of their runs of words.

Alike means one thing everywhere: the Jaccard similarity of word 3-shingles. Who seeks the pairs differs. `dedupe` takes the
candidates of a MinHash index, which grows item by item as it keeps them: a pair missed now and then costs a spare example.
`kin` and `exclude` must miss none, or a split leaks or a benchmark is trained on: they search here.

Two sets with a Jaccard similarity of at least t share an element among the rarest (1 - t) of either. So only those are
indexed, which keeps the candidates few; each candidate is then compared in full.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Shingles = frozenset[int]
SHINGLE = 3
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")


def shingles(text: str) -> frozenset[str]:
    """Runs of three words, lower case; the whole of a shorter text."""
    words = _WORD.findall(text.lower())
    return frozenset(" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1)))


def numbered(text: str) -> Shingles:
    """64-bit hashes of a text's word 3-shingles, the same in every process."""
    return frozenset(int.from_bytes(hashlib.blake2b(s.encode("utf-8", "surrogatepass"), digest_size=8).digest()) for s in shingles(text))


def jaccard(a: frozenset[T], b: frozenset[T]) -> float:
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
