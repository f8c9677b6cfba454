"""Keep one of every group of duplicates, exact or near, over all splits: a test item must not have a twin in train.

Plain texts are compared, side by side with their own label only: a near miss just across the line is what the classifier
must learn from. What falls takes its disguised copies with it. Candidates come from a sketch (see twins.py on which search is for what).
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence

from charter.synthesis.items import TURNING, Item, Outcome, home
from charter.synthesis.twins import jaccard, shingles

NUM_PERM = 64
THRESHOLD = 0.8
"""Jaccard similarity of word 3-shingles from which two texts are near-duplicates."""
CANDIDATES = 0.7
"""The index is asked for more than the threshold, because it finds pairs at its own threshold only half of the time;
each candidate is then compared exactly."""


def dedupe(items: Sequence[Item], seed: int) -> Outcome:
    """Items without duplicates, in their order; items with replies are kept before those without."""
    plain = [item for item in items if item.family == "plain"]
    order = sorted(range(len(plain)), key=lambda i: (not plain[i].replies, i))
    fallen: dict[int, str] = {}
    for side in ("restricted", "permitted"):
        fallen |= _near([(i, plain[i].text) for i in order if plain[i].side == side], seed)
    fallen |= _contradictions(plain, fallen)
    kept = {id(plain[i]) for i in range(len(plain)) if i not in fallen}
    dropped = Counter((home(plain[i]), why) for i, why in fallen.items())
    return _with_copies(items, kept, dropped)


def _near(texts: Sequence[tuple[int, str]], seed: int) -> dict[int, str]:
    """Number -> "exact duplicate" or "near duplicate" of those whose twin came earlier."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=CANDIDATES, num_perm=NUM_PERM)
    sets = [shingles(text) for _, text in texts]
    # zlib.crc32: the hash must be the same in every process, and 32 bits suffice for candidates that are then compared.
    hashes = MinHash.bulk(
        [[s.encode("utf-8", "surrogatepass") for s in x] for x in sets], num_perm=NUM_PERM, seed=seed + 1, hashfunc=zlib.crc32
    )
    known: set[str] = set()
    fallen: dict[int, str] = {}
    for place, ((number, text), sketch) in enumerate(zip(texts, hashes, strict=True)):
        exact = " ".join(text.split()).casefold()
        if exact in known:
            fallen[number] = "exact duplicate"
            continue
        if any(jaccard(sets[place], sets[other]) >= THRESHOLD for other in index.query(sketch)):
            fallen[number] = "near duplicate"
            continue
        known.add(exact)
        index.insert(place, sketch)
    return fallen


def _contradictions(plain: Sequence[Item], fallen: Iterable[int]) -> dict[int, str]:
    """The same text on both sides teaches nothing: both fall."""
    gone = set(fallen)
    sides: dict[str, set[str]] = {}
    for number, item in enumerate(plain):
        if number not in gone:
            sides.setdefault(item.parent, set()).add(item.side)
    return {i: "on both sides" for i, item in enumerate(plain) if i not in gone and len(sides[item.parent]) > 1}


def _with_copies(items: Sequence[Item], kept: set[int], dropped: Counter[tuple[str, str]]) -> Outcome:
    """The kept plain items with the copies made from them, none of them twice."""
    parents = {(item.parent, home(item)) for item in items if id(item) in kept} | {
        (item.parent, TURNING) for item in items if id(item) in kept
    }
    out, seen = [], {item.turns for item in items if id(item) in kept}
    for item in items:
        if item.family == "plain":
            out += [item] if id(item) in kept else []
        elif (item.parent, TURNING if item.family == TURNING else home(item)) not in parents:
            dropped[home(item), "copy of a duplicate"] += 1
        elif item.family == TURNING:
            out.append(item)
        elif item.turns in seen:
            dropped[home(item), "disguise changes nothing"] += 1
        else:
            seen.add(item.turns)
            out.append(item)
    return Outcome(out, dropped)
