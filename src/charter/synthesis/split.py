"""Train, dev or test by the hash of the parent: a text never changes its split, and its disguises never leave it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from charter.errors import DataError
from charter.records import Example, Split, split_place
from charter.synthesis.items import Item

TRAIN, DEV = 0.66, 0.17
"""Shares of the parents; the rest is test."""


def split_of(parent: str) -> Split:
    """The split of a parent: it depends on nothing else, so more data or another seed moves nobody."""
    place = split_place(f"split:{parent}")
    return "train" if place < TRAIN else "dev" if place < TRAIN + DEV else "test"


def split(items: Iterable[Item], seed: int, hashes: Mapping[str, str], held_out: Iterable[str]) -> Iterator[Example]:
    """The rows of all items, each in its parent's split. `hashes` gives the hash of each clause.

    Raises:
        DataError: an item of a held-out family has a parent outside the test split.
    """
    unseen = frozenset(held_out)
    for item in items:
        place = split_of(item.parent)
        if item.family in unseen and place != "test":
            raise DataError(f"item {item.parent}: family {item.family!r} is held out for the test split, its parent is in {place}")
        yield from item.rows(seed, place, hashes.get(item.clause, ""))
