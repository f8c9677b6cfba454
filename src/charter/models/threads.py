"""One thread for numpy's matrix products while torch has the cores.

The library behind numpy (OpenBLAS) lets its threads spin for some milliseconds after each product, in wait for the next one, and takes the
cores from torch's. On two of them evaluation ran at 69 % of a bare forward's rate so, and at 97 % with one thread (docs/evaluation.md).
What numpy has to multiply between two forwards is small.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def numpy_alone() -> threadpool_limits:
    """From now on, or within `with`."""
    return threadpool_limits(limits=1, user_api="blas")
