"""What the gateway remembers between requests: so many things at most, each for so long after it was last asked for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Things by id. Changed on the event loop only."""

    def __init__(self, most: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._idle_s, self._clock = most, idle_s, clock
        self._things: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        self._expire()
        return len(self._things)

    @property
    def full(self) -> bool:
        return len(self) >= self._most

    def put(self, key: str, thing: T) -> None:
        """Keep this; where there is no room, the one that was asked for longest ago goes."""
        self._things[key] = (self._clock(), thing)
        self._things.move_to_end(key)
        while len(self) > self._most:
            self._things.popitem(last=False)

    def get(self, key: str) -> T | None:
        """The thing, which is then kept anew; None where it was never put or has gone."""
        self._expire()
        found = self._things.get(key)
        if found is None:
            return None
        self._things[key] = (self._clock(), found[1])
        self._things.move_to_end(key)
        return found[1]

    def pop(self, key: str) -> T | None:
        """The thing, which is not kept any more."""
        self._expire()
        found = self._things.pop(key, None)
        return found[1] if found else None

    def _expire(self) -> None:
        now = self._clock()
        while self._things and now - next(iter(self._things.values()))[0] > self._idle_s:
            self._things.popitem(last=False)
