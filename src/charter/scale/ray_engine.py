"""Synthesis on a Ray cluster: the tasks of a stage are cut into partitions, each of which runs as one Ray task.

Every partition opens a teacher of its own, with the cache of the node it runs on. A partition whose worker is killed is
run again; what it had asked on that node is in the cache there, so at most the calls in flight are asked twice.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from charter.errors import BudgetExceeded, CharterError, MissingExtra, TeacherError
from charter.llm.cache import TOLERATED, WINDOW, Usage
from charter.llm.pool import Budget, Progress, quiet
from charter.synthesis.engine import LocalEngine, Task, stopped
from charter.synthesis.teachers import Teacher

T = TypeVar("T")
PARTITIONS_A_WORKER = 4
"""More than one, so that workers with short partitions help out and a killed one loses little; few, because each opens a teacher."""
LOSSES = 3
"""Times that a partition may lose its worker before the run gives up."""


class Opening(Protocol):
    """How a worker opens the teacher: `open_teacher` with all but these two arguments. It is sent to the workers."""

    def __call__(self, *, budget: Budget, limit: int) -> AbstractAsyncContextManager[Teacher]: ...


@dataclass(frozen=True)
class Part(Generic[T]):
    """What came of a partition."""

    results: list[T] | None = None
    """None where it failed."""
    error: CharterError | None = None
    usage: Usage = field(default_factory=Usage)
    spent: float = 0.0
    lost: bool = False
    """Its worker died, and what it did is not known."""


@contextmanager
def cluster(**options: Any) -> Iterator[None]:
    """A connection to the cluster that RAY_ADDRESS or `ray start` names, or to one of this machine's cores where there is none.

    Raises:
        MissingExtra: Ray is not installed.
        TeacherError: the cluster can't be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("--engine ray needs: pip install 'charter[ray]'") from error
    mine = not ray.is_initialized()
    if mine:
        chosen: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", **options}
        try:
            ray.init(**chosen)
        except Exception as error:  # a node that is too slow to start is told by no class of its own
            reason = str(error).split("\n")[0]
            raise TeacherError(
                f"the Ray cluster can't be reached ({reason}); is RAY_ADDRESS right, and does `ray status` answer?"
            ) from error
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


class RayEngine:
    """Runs tasks on the workers of the cluster that this process is connected to."""

    def __init__(self, opening: Opening, budget: Budget, limit: int, workers: int | None = None) -> None:
        """`limit` bounds the calls in flight over all workers; `workers` defaults to the cores of the cluster.

        A cost cap is shared out over the partitions. What a killed worker had been given counts as spent, since it may have
        been: the cap holds whatever happens.
        """
        import ray

        self._opening, self._budget, self._limit = opening, budget, limit
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self._workers = max(1, workers or int(resources.get("CPU", 1)))
        self.usage = Usage()
        self.repeated = 0
        """Partitions that were run again because their worker was lost."""

    async def run(self, tasks: Sequence[Task[T]], progress: Progress = quiet, what: str = "") -> list[T]:
        """The results of all tasks, in their order.

        Raises:
            BudgetExceeded: the cost cap was reached; what was paid for is in the caches of the nodes.
            TeacherError: the teacher can't be reached, or workers keep dying.
        """
        parts = cut(tasks, self._workers)
        found: dict[int, list[T]] = {}
        losses = [0] * len(parts)

        def tell() -> None:
            progress(what, sum(len(part) for part in found.values()), len(tasks))

        while len(found) < len(parts):
            waiting = {number: part for number, part in enumerate(parts) if number not in found}
            share = self._share(len(waiting))
            before, capped = self.usage.made, None
            async with aclosing(self._round(waiting, share)) as ended:
                async for number, part in ended:
                    self._enter(part, share)
                    losses[number] += part.lost
                    if part.results is not None:
                        found[number] = part.results
                        tell()
                    elif isinstance(part.error, BudgetExceeded):
                        capped = part.error
                    elif part.error is not None:
                        raise part.error
            if max(losses) > LOSSES:
                raise TeacherError(
                    f"{what}: the worker of a partition died {max(losses)} times; is a node short of memory? Run again to go on"
                )
            if capped and self.usage.made == before:
                done = sum(len(part) for part in found.values())
                raise stopped(self._budget.exceeded(), what, done, len(tasks)) from capped
        return [result for number in range(len(parts)) for result in found[number]]

    def _share(self, n: int) -> float | None:
        return None if self._budget.max_cost is None else max(0.0, self._budget.max_cost - self._budget.spent) / n

    async def _round(self, parts: Mapping[int, Sequence[Task[T]]], share: float | None) -> AsyncGenerator[tuple[int, Part[T]]]:
        """Run partitions, each once; yields number and part as they end.

        Each that runs has a call in flight, so no more are handed out at once than calls are allowed.
        """
        import anyio
        import ray

        work = ray.remote(num_cpus=1, max_retries=0)(_work)
        limit = max(1, self._limit // min(self._workers, len(parts)))
        prices = (share, self._budget.price_in, self._budget.price_out)
        opening = ray.put(self._opening)
        waiting = deque(parts.items())
        pending: dict[Any, int] = {}
        try:
            while pending or waiting:
                while waiting and len(pending) < self._limit:
                    number, part = waiting.popleft()
                    pending[work.remote(opening, list(part), prices, limit)] = number
                ready, _ = await anyio.to_thread.run_sync(partial(ray.wait, list(pending), timeout=1.0))
                for ref in ready:
                    yield pending.pop(ref), await anyio.to_thread.run_sync(_outcome, ref)
        finally:
            for ref in pending:
                ray.cancel(ref, force=True)

    def _enter(self, part: Part[T], share: float | None) -> None:
        """Count what a partition took; stop where hardly anything usable comes."""
        self.usage += part.usage
        self.repeated += part.lost
        self._budget.spent += (share or 0.0) if part.lost else part.spent
        self._budget.calls += part.usage.made
        tried = self.usage.made + self.usage.failed
        if self.usage.failed > TOLERATED and self.usage.failed > tried * TOLERATED / WINDOW:
            raise TeacherError(
                f"stopped: {self.usage.failed:,} of {tried:,} calls got nothing usable; what was answered is cached: "
                "mend the teacher and run again to go on from here"
            )


def cut(tasks: Sequence[T], workers: int) -> list[Sequence[T]]:
    """The partitions: runs of neighbours, as even as can be, none of them empty."""
    n = min(len(tasks), workers * PARTITIONS_A_WORKER)
    ends = [len(tasks) * i // n for i in range(n + 1)] if n else [0]
    return [tasks[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def _outcome(ref: Any) -> Part[Any]:
    """What a Ray task gave; a lost part where its worker died."""
    import ray

    try:
        part: Part[Any] = ray.get(ref)
    except ray.exceptions.RayTaskError:
        raise  # a fault in the work itself
    except ray.exceptions.RayError:
        return Part(lost=True)
    return part


def _work(opening: Opening, tasks: list[Task[Any]], prices: tuple[float | None, float, float], limit: int) -> Part[Any]:
    """One partition, in a worker. Errors that the user can mend come back as values: Ray would wrap them."""
    import anyio

    return anyio.run(_partition, opening, tasks, Budget(*prices), limit)


async def _partition(opening: Opening, tasks: list[Task[Any]], budget: Budget, limit: int) -> Part[Any]:
    usage: Callable[[], Usage] = Usage
    try:
        async with opening(budget=budget, limit=limit) as teacher:
            usage = partial(getattr, teacher, "usage")
            results = await LocalEngine(teacher, limit).run(tasks)
            return Part(results, None, usage(), budget.spent)
    except CharterError as error:
        return Part(None, type(error)(str(error)), usage(), budget.spent)
