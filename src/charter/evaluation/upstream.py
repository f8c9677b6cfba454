"""The model that a guard's cost is held against: a name of the list in upstreams.json, each with its source, or a number of weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources

from charter.errors import DataError


@dataclass(frozen=True, slots=True)
class Upstream:
    """What a token of the guarded model takes."""

    name: str
    parameters: float
    """Weights that a token meets: the active ones of a mixture of experts."""
    source: str
    tokens_per_second: float | None = None
    """As whoever runs it has measured; None where nobody said."""

    @property
    def flops_per_token(self) -> float:
        """2 FLOPs a weight."""
        return 2 * self.parameters


def upstream(asked: str = "embedded", tokens_per_second: float | None = None) -> Upstream:
    """The upstream of that name, or of that many active weights ("8e9").

    Raises:
        DataError: it is neither.
    """
    listed = _listed()
    if asked in listed:
        row = listed[asked]
        return Upstream(asked, float(row["parameters"]), str(row["source"]), tokens_per_second)
    try:
        parameters = float(asked)
    except ValueError:
        parameters = math.nan
    if not 0 < parameters < math.inf:
        names = ", ".join(listed)
        raise DataError(f"{asked!r} is no upstream that is listed; give its number of active weights, such as 8e9, or one of {names}")
    return Upstream(f"{parameters:g} weights", parameters, "as given", tokens_per_second)


@cache
def _listed() -> dict[str, dict[str, float | str]]:
    text = (resources.files("charter.evaluation") / "upstreams.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, float | str]] = json.loads(text)
    return found
