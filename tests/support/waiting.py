"""Waiting for what comes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], bool]) -> None:
    """Wait for it, for as long as a very busy machine may take: a minute."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
