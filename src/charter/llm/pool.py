"""Many calls at once, a bounded number in flight, results in order; a cost cap that never loses what was paid for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from charter.errors import BudgetExceeded

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


def quiet(what: str, done: int, total: int) -> None:
    """The progress that says nothing."""


async def gather(tasks: Sequence[Callable[[], Awaitable[T]]], limit: int, progress: Progress = quiet, what: str = "") -> list[T]:
    """Results of all tasks, in their order, with at most `limit` running.

    The first error cancels the rest and is raised as it is, not in a group. A spent budget only keeps new tasks from
    starting: those under way are paid for, so they end (and are cached) before it is raised.
    """
    import anyio

    results: dict[int, T] = {}
    failures: list[Exception] = []
    queue = iter(enumerate(tasks))

    async def work(scope: anyio.CancelScope) -> None:
        for number, task in queue:
            if failures:
                return
            try:
                results[number] = await task()
            except BudgetExceeded as error:
                failures.append(error)
            except Exception as error:  # raised below, outside the group that would wrap it
                failures.append(error)
                scope.cancel()
            progress(what, len(results), len(tasks))

    async with anyio.create_task_group() as group:
        for _ in range(min(limit, len(tasks))):
            group.start_soon(work, group.cancel_scope)
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(tasks))]


@dataclass
class Budget:
    """What a run may cost. Prices are in one currency per million tokens; calls under way are reserved at their worst case."""

    max_cost: float | None = None
    """None: no cap."""
    price_in: float = 0.0
    price_out: float = 0.0
    spent: float = 0.0
    reserved: float = 0.0
    calls: int = 0
    """Calls paid for, or sent without a usable answer and perhaps charged."""

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6

    def reserve(self, tokens_in: int, tokens_out: int) -> float:
        """Set aside the worst case of a call; returns the amount to hand to `settle` or `release`.

        Raises:
            BudgetExceeded: the call might pass the cap.
        """
        amount = self.cost(tokens_in, tokens_out)
        if self.max_cost is not None and self.spent + self.reserved + amount > self.max_cost:
            raise self.exceeded()
        self.reserved += amount
        return amount

    def exceeded(self) -> BudgetExceeded:
        """The error that says what is there and how to go on."""
        return BudgetExceeded(
            f"stopped after {self.calls:,} paid calls at {self.spent:.4f} of a cost cap of {self.max_cost or 0:.4f}; "
            "all answers so far are cached: run again with a higher `--max-cost` to go on from here"
        )

    def release(self, amount: float) -> None:
        """The call ended without an answer: what it may have cost was counted by `lose`."""
        self.reserved -= amount

    def lose(self, tokens_in: int, tokens_out: int) -> None:
        """A call was sent and nothing usable came back. It may be charged all the same, so its worst case counts as spent.

        Raises:
            BudgetExceeded: to send it again might pass the cap.
        """
        self.spent += self.cost(tokens_in, tokens_out)
        self.calls += 1
        if self.max_cost is not None and self.spent + self.reserved > self.max_cost:
            raise self.exceeded()

    def settle(self, amount: float, tokens_in: int, tokens_out: int) -> None:
        """The call ended: its worst case gives way to what it used."""
        self.reserved -= amount
        self.spent += self.cost(tokens_in, tokens_out)
        self.calls += 1
