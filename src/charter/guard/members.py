"""ensemble.safetensors: the bootstrap members of a guard's linear probe.

For each view `<view>.weight` float16 [members, heads, inputs], `<view>.bias` float32 [members, heads] and `<view>.seeds` int64
[members]; those that serve come first. How many they are stands in guard.json.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from charter.errors import DataError, GuardError
from charter.guard.record import GuardRecord
from charter.models.ensemble import Ensemble, Members
from charter.records import View


def read(file: Path, record: GuardRecord, inputs: int) -> dict[View, Ensemble]:
    """The members of every view, as float32, checked.

    Raises:
        GuardError: the file is damaged, or does not fit guard.json.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(file)
    except (SafetensorError, ValueError, KeyError) as error:
        raise GuardError(f"{file}: can't be read as safetensors ({error})") from error
    assert record.ensemble is not None
    serving = record.ensemble.serving
    members, heads = serving + record.ensemble.held_out, 1 + len(record.clauses)
    found: dict[View, Ensemble] = {}
    for view in record.views:
        parts = [arrays.get(f"{view}.{part}") for part in ("weight", "bias", "seeds")]
        weights, biases, seeds = parts
        shapes = [None if part is None else part.shape for part in parts]
        if weights is None or biases is None or seeds is None or shapes != [(members, heads, inputs), (members, heads), (members,)]:
            raise GuardError(f"{file}: {view} does not hold {members} members of {heads} heads and {inputs} inputs; train the guard again")
        with np.errstate(over="ignore"):  # what overflows is refused below
            w, b = weights.astype(np.float32), biases.astype(np.float32)
        if not (np.isfinite(w).all() and np.isfinite(b).all()):
            raise GuardError(f"{file}: {view} holds numbers that are not finite; train the guard again")
        parted = (slice(0, serving), slice(serving, None))
        try:
            found[view] = Ensemble(*(Members(w[part], b[part], tuple(map(int, seeds[part]))) for part in parted))
        except DataError as error:
            raise GuardError(f"{file}: {view}: {error}") from error
    return found
