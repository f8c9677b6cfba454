"""Train, dev or test by the hash of the group: near-twins share a split, and the disguises of a text never leave it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from charter.errors import DataError
from charter.records import Example, Split, split_place
from charter.synthesis.families import held
from charter.synthesis.items import ORDINARY, Item

AUDITED = "audit:"
"""Begins the groups, and the teacher's name, of rows that a person decided on in an audit log."""
TRAIN, DEV = 0.66, 0.17
"""Shares of the groups; the rest is test."""
ORDINARY_TRAIN, ORDINARY_DEV = 0.42, 0.5
"""The same for ordinary traffic. Half of it is kept for calibration: a budget of 0.1 % can only be certified on 2,995 harmless
prompts that no scorer was trained on."""


def split_of(group: str) -> Split:
    """The split of a group. Audited rows train. Else it depends on nothing else, so another seed moves nobody, and more data only what it makes kin."""
    if group.startswith(AUDITED):
        return "train"
    train, dev = (ORDINARY_TRAIN, ORDINARY_DEV) if group.startswith(ORDINARY) else (TRAIN, DEV)
    place = split_place(f"split:{group}")
    return "train" if place < train else "dev" if place < train + dev else "test"


def split(items: Iterable[Item], seed: int, hashes: Mapping[str, str], held_out: Iterable[str]) -> Iterator[Example]:
    """The rows of all items, each in its group's split. `hashes` gives the hash of each clause.

    Raises:
        DataError: an item of a held-out family has a group outside the test split.
    """
    unseen = frozenset(held_out)
    for item in items:
        place = split_of(item.group)
        if held(item.family, unseen) and place != "test":
            raise DataError(f"item {item.parent}: family {item.family!r} is held out for the test split, its parent is in {place}")
        yield from item.rows(seed, place, hashes.get(item.clause, ""))
