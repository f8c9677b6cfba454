"""--engine and --concurrency: where synthesis runs, and how many calls of the teacher are in flight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from charter.llm.pool import Budget
    from charter.scale.ray_engine import Opening
    from charter.synthesis.engine import Engine


class Place(StrEnum):
    """Where the teacher's work is done."""

    local = "local"
    ray = "ray"


EngineName = Annotated[Place, typer.Option("--engine", help="local, or ray: the cluster that RAY_ADDRESS or `ray start` names.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Calls of the teacher in flight at once, over all workers.")]
CONCURRENCY = 8


@contextmanager
def chosen(place: Place, opening: Opening, budget: Budget, limit: int) -> Iterator[Engine | None]:
    """The engine of that name while the block runs; None for the local one.

    Raises:
        MissingExtra: Ray is not installed.
        TeacherError: the cluster can't be reached.
    """
    if place is Place.local:
        yield None
        return
    from charter.scale.ray_engine import RayEngine, cluster

    with cluster():
        yield RayEngine(opening, budget, limit)
