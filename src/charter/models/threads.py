"""How many threads multiply matrices: one for numpy's products while torch has the cores, one for a short step that a second would hold up,
and one for each of several parts of a long work.

The library behind numpy (OpenBLAS) lets its threads spin for some milliseconds after each product, in wait for the next one, and takes the
cores from torch's. On two of them evaluation ran at 69 % of a bare forward's rate so, and at 97 % with one thread (docs/evaluation.md).
What numpy has to multiply between two forwards is small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

P = TypeVar("P")
R = TypeVar("R")


def numpy_alone() -> threadpool_limits:
    """From now on, or within `with`."""
    return threadpool_limits(limits=1, user_api="blas")


def alone() -> AbstractContextManager[object]:
    """Within `with` the calling thread's products are its own work: OpenMP counts threads for each thread that asks, so nobody else's change.

    Handing a product of one token to a second thread, which sleeps between two of them, takes longer than the product.
    """
    torch.get_num_threads()  # a thread's first question sets its number, so it comes before ours
    limited: AbstractContextManager[object] = _openmp().limit(limits=1)
    return limited


def side_by_side(work: Callable[[P], R], parts: Iterable[P], threads: int) -> Iterator[R]:
    """What `work` makes of each part, in order; as many at a time as there are threads, each one thread's work.

    Two threads on one product wait for each other at its end, and for whatever is done between two products: evaluation has a quarter
    more tokens a second with a part for each (docs/evaluation.md).
    """
    if threads < 2:
        yield from map(work, parts)
        return

    def one(part: P) -> R:
        with alone():
            return work(part)

    with ThreadPoolExecutor(threads, "charter-side-by-side") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for part in parts:
                waiting.append(pool.submit(one, part))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


@lru_cache(maxsize=1)
def _openmp() -> ThreadpoolController:
    """Looking for the libraries takes milliseconds; done once."""
    return ThreadpoolController().select(user_api="openmp")
