"""Stage 4: the benign pools, ordinary traffic from outside the constitution, one slice a file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable

from charter.constitution import Constitution
from charter.errors import DataError
from charter.synthesis.items import Item, from_pool
from charter.synthesis.recorded import read_rows, replies_of, spread, turns_of

UNFIT = {"bank-assistant": ("business", "law", "medicine-law")}
"""Pools that hold what a shipped constitution restricts: a bank's assistant may not answer its questions on law and savings."""


def pools(
    constitution: Constitution, leave_out: Collection[str] | None = None, folder: Traversable | None = None, n: int | None = None
) -> list[Item]:
    """The items of the pools, file by file; a file's name is its slice.

    Args:
        leave_out: defaults to what is UNFIT.
        n: rows of each pool, spread over its file; all of them where None.

    Raises:
        DataError: a pool to leave out isn't there, or a row is malformed.
    """
    folder = folder or resources.files("charter") / "constitutions" / "benign"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".jsonl")), key=lambda f: f.name)
    slices = [f.name.removesuffix(".jsonl") for f in files]
    leave_out = UNFIT.get(constitution.name, ()) if leave_out is None else leave_out
    for name in leave_out:
        if name not in slices:
            raise DataError(f"there is no benign pool {name!r} to leave out; the pools are {', '.join(slices)}")
    items = []
    for name, file in zip(slices, files, strict=True):
        if name not in leave_out:
            for where, row in spread(list(read_rows(file)), n):
                item = from_pool(name, turns_of(row, where), None, f"recorded:{row.get('by', 'authored')}")
                items.append(replace(item, replies=replies_of(row)))
    return items
