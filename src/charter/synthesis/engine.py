"""Where the work of a stage is done: here, or spread over a cluster. The stages do not know which.

A task is a function of a teacher. What it gives depends on its arguments and the seed alone, never on who else runs, so any
engine gives the same results in the same order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from charter.errors import BudgetExceeded
from charter.llm.cache import Usage
from charter.llm.pool import Progress, gather, quiet
from charter.synthesis.teachers import Teacher

T = TypeVar("T")
Task = Callable[[Teacher], Awaitable[T]]
"""A unit of work: a clause, an item, or a bundle of items. It must survive pickling, because a worker elsewhere may run it."""


class Engine(Protocol):
    """Who runs the tasks: `LocalEngine`, or one on a cluster."""

    @property
    def usage(self) -> Usage:
        """What was asked of the teacher so far, by all who worked."""
        ...

    async def run(self, tasks: Sequence[Task[T]], progress: Progress = quiet, what: str = "") -> list[T]:
        """The results of all tasks, in their order.

        Raises:
            BudgetExceeded: the cost cap was reached; says how many tasks are done.
            TeacherError: the teacher can't be reached.
        """
        ...


class LocalEngine:
    """This process, with at most `limit` tasks at once."""

    def __init__(self, teacher: Teacher, limit: int) -> None:
        self._teacher, self._limit = teacher, limit

    @property
    def usage(self) -> Usage:
        """The teacher's own count."""
        return self._teacher.usage

    async def run(self, tasks: Sequence[Task[T]], progress: Progress = quiet, what: str = "") -> list[T]:
        """The results of all tasks, in their order."""
        done = 0

        def step(stage: str, finished: int, total: int) -> None:
            nonlocal done
            done = finished
            progress(stage, finished, total)

        try:
            return await gather([partial(task, self._teacher) for task in tasks], self._limit, step, what)
        except BudgetExceeded as error:
            raise stopped(error, what, done, len(tasks)) from error


def stopped(error: BudgetExceeded, what: str, done: int, total: int) -> BudgetExceeded:
    """The same error, with how far the stage got."""
    return BudgetExceeded(f"{what or 'the work'}: {done:,} of {total:,} done; {error}")
