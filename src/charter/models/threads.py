"""How many threads multiply matrices: one for numpy's products while torch has the cores, and one for a short step that a second would hold up.

The library behind numpy (OpenBLAS) lets its threads spin for some milliseconds after each product, in wait for the next one, and takes the
cores from torch's. On two of them evaluation ran at 69 % of a bare forward's rate so, and at 97 % with one thread (docs/evaluation.md).
What numpy has to multiply between two forwards is small.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import lru_cache

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits


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


@lru_cache(maxsize=1)
def _openmp() -> ThreadpoolController:
    """Looking for the libraries takes milliseconds; done once."""
    return ThreadpoolController().select(user_api="openmp")
