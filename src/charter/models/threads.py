"""One thread for numpy's matrix products while torch has the cores.

The library behind numpy (OpenBLAS) lets its threads spin for some milliseconds after each product, in wait for the next one. Beside torch's own
threads, on two cores, they took a third of the time of a streamed word. What numpy has to multiply between two forwards is small.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def numpy_alone() -> threadpool_limits:
    """From now on, or within `with`."""
    return threadpool_limits(limits=1, user_api="blas")
