from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import BudgetExceeded, TeacherError
from charter.llm.pool import Budget, gather


@given(delays=st.lists(st.integers(0, 3), max_size=12), limit=st.integers(1, 5))
def test_results_keep_their_order_and_no_more_than_the_limit_run_at_once(delays: list[int], limit: int) -> None:
    running, most = 0, 0

    async def task(number: int, steps: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(steps):
            await anyio.sleep(0)
        running -= 1
        return number

    results = anyio.run(gather, [lambda n=n, d=d: task(n, d) for n, d in enumerate(delays)], limit)
    assert results == list(range(len(delays)))
    assert most <= limit


def test_progress_counts_up_to_all_of_them() -> None:
    told: list[tuple[str, int, int]] = []

    async def task() -> int:
        return 0

    anyio.run(gather, [task] * 3, 2, lambda *step: told.append(step), "things")
    assert told[-1] == ("things", 3, 3)


def test_the_first_error_is_raised_as_it_is_and_stops_the_rest() -> None:
    started = []

    async def task(number: int) -> None:
        started.append(number)
        await anyio.sleep(0)
        if number == 1:
            raise TeacherError("gone")
        await anyio.sleep(30)

    with pytest.raises(TeacherError, match="gone"):
        anyio.run(gather, [lambda n=n: task(n) for n in range(9)], 2)
    assert started == [0, 1]


def test_a_spent_budget_starts_nothing_new_but_lets_what_runs_end() -> None:
    ended = []

    async def task(number: int) -> None:
        if number == 2:
            raise BudgetExceeded("spent")
        await anyio.sleep(0.02)
        ended.append(number)

    with pytest.raises(BudgetExceeded):
        anyio.run(gather, [lambda n=n: task(n) for n in range(9)], 3)
    assert ended == [0, 1]


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900), st.floats(0, 1)), max_size=30), st.floats(0, 1e-3))
def test_what_is_spent_never_passes_the_cap(calls: list[tuple[int, int, float]], cap: float) -> None:
    budget = Budget(cap, price_in=1.0, price_out=2.0)
    for tokens_in, tokens_out, share in calls:
        try:
            amount = budget.reserve(tokens_in, tokens_out)
        except BudgetExceeded:
            continue
        budget.settle(amount, int(tokens_in * share), int(tokens_out * share))
    assert budget.spent <= cap
    assert budget.reserved == pytest.approx(0)


def test_calls_under_way_count_at_their_worst_case_until_they_end() -> None:
    budget = Budget(1.0, price_out=1e6)
    first = budget.reserve(0, 1)
    with pytest.raises(BudgetExceeded, match="--max-cost"):
        budget.reserve(0, 1)
    budget.release(first)
    assert budget.reserve(0, 1) == 1.0
