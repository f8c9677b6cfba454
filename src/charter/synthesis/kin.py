"""Near-twins share a split, also across the line: "How do I kill a process" says much about "How do I kill a person".

Texts of which half the runs of three words are the same belong together, whatever their labels, and so do those that are
linked by others. The plain items of all clauses and pools are compared, whole conversations; copies take their item's kin.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from charter.synthesis.items import ORDINARY, Item
from charter.synthesis.twins import Twins, numbered

THRESHOLD = 0.5
"""Jaccard similarity of word 3-shingles from which two texts are near-twins."""
LARGEST, STRICTER = 50, 0.65
"""A group of more items than `LARGEST` is a chain of a frame that everybody uses: in it only pairs from `STRICTER` on count,
so that pairs between the two thresholds may part. It is counted as `loosened`."""
Edge = tuple[str, str, float]


@dataclass(frozen=True, slots=True)
class Kinship:
    """How the items hang together; in the manifest."""

    groups: int
    """Groups of more than one parent."""
    items: int
    """Parents in them."""
    largest: int
    """Parents in the largest group; 1 where nobody has kin, 0 without items."""
    loosened: int
    """Groups that were too large and fell apart into pairs of a higher similarity."""


def kin(items: Sequence[Item]) -> tuple[list[Item], Kinship]:
    """The plain items with `kin` set to the smallest parent of their group, in their order. The order changes no group.

    Groups of pool items alone are marked as ordinary: they are split in other shares (see `split`).
    """
    texts = {item.parent: item.text for item in items}
    parents = sorted(texts)
    edges = list(_edges(parents, [texts[p] for p in parents]))
    heads = _heads(parents, edges)
    size = Counter(heads.values())
    loose = {head for head, n in size.items() if n > LARGEST}
    if loose:
        heads = _heads(parents, [e for e in edges if heads[e[0]] not in loose or e[2] >= STRICTER])
        size = Counter(heads.values())
    several = [n for n in size.values() if n > 1]
    found = Kinship(len(several), sum(several), max(size.values(), default=0), len(loose))
    governed = {heads[item.parent] for item in items if item.clause}
    names = {head: head if head in governed else ORDINARY + head for head in size}
    return [replace(item, kin=names[heads[item.parent]]) for item in items], found


def _edges(parents: Sequence[str], texts: Sequence[str]) -> Iterable[Edge]:
    """Pairs of near-twins, smaller parent first, with their similarity."""
    sets = [numbered(text) for text in texts]
    known = Twins(sets, THRESHOLD)
    for place, own in enumerate(sets):
        for other, value in known.of(own):
            if other > place:
                yield parents[place], parents[other], value


def _heads(parents: Sequence[str], edges: Iterable[Edge]) -> dict[str, str]:
    """Parent -> smallest parent that it is linked to by the edges."""
    near = defaultdict(list)
    for a, b, _ in edges:
        near[a].append(b)
        near[b].append(a)
    heads: dict[str, str] = {}
    for head in sorted(parents):  # the smallest of a group is met first
        waiting = [] if head in heads else [head]
        while waiting:
            parent = waiting.pop()
            if parent not in heads:
                heads[parent] = head
                waiting += near[parent]
    return heads
