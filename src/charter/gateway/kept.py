"""What the gateway remembers between requests: so many things at most, each for so long after it was last asked for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Things by id. Changed on the event loop only."""

    def __init__(
        self, most: int, idle_s: float, clock: Callable[[], float] = time.monotonic, left: Callable[[T], object] | None = None
    ) -> None:
        """`left` hears of each thing that is let go because nobody asked for it or there was no room; not of those that are popped."""
        self._most, self._idle_s, self._clock, self._left = most, idle_s, clock, left
        self._things: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        self.expire()
        return len(self._things)

    @property
    def full(self) -> bool:
        return len(self) >= self._most

    def put(self, key: str, thing: T) -> None:
        """Keep this; where there is no room, the one that was asked for longest ago goes."""
        before = self._things.pop(key, None)
        if before is not None and self._left is not None:
            self._left(before[1])
        self._things[key] = (self._clock(), thing)
        while len(self) > self._most:
            self._let_go()

    def get(self, key: str) -> T | None:
        """The thing, which is then kept anew; None where it was never put or has gone."""
        self.expire()
        found = self._things.get(key)
        if found is None:
            return None
        self._things[key] = (self._clock(), found[1])
        self._things.move_to_end(key)
        return found[1]

    def pop(self, key: str) -> T | None:
        """The thing, which is not kept any more."""
        self.expire()
        found = self._things.pop(key, None)
        return found[1] if found else None

    def expire(self) -> None:
        """Let go of what nobody asked for."""
        now = self._clock()
        while self._things and now - next(iter(self._things.values()))[0] > self._idle_s:
            self._let_go()

    def clear(self) -> None:
        """Let go of everything."""
        while self._things:
            self._let_go()

    def _let_go(self) -> None:
        _, (_, thing) = self._things.popitem(last=False)
        if self._left is not None:
            self._left(thing)
