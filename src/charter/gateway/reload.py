"""A guard is swapped while streams are open: new conversations are judged by the new one, open ones end on the old one."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

import anyio
import anyio.to_thread

from charter.errors import CharterError, Unavailable
from charter.gateway.scorer import Scorer
from charter.gateway.watch import EVERY_S, Watch
from charter.guard.holdback import GuardLike

Reload = Callable[[], GuardLike]
"""Loads the guard as its folder is now. May take long; called in a thread."""
log = logging.getLogger("charter.gateway")


class Reloader:
    """Loads the guard again when the process is sent SIGHUP."""

    def __init__(self, scorer: Scorer, load: Reload) -> None:
        self._scorer, self._load = scorer, load
        self._lock = anyio.Lock()
        self._tasks: set[asyncio.Task[bool]] = set()

    def listen(self) -> None:
        """From now on. Signals reach the main thread alone; elsewhere this does nothing."""
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._begin)

    async def follow(self, watch: Watch) -> None:
        """Load the guard whenever another was put there, for ever."""
        while True:
            await anyio.sleep(EVERY_S)
            if await anyio.to_thread.run_sync(watch.changed):
                await self.reload()

    async def reload(self) -> bool:
        """Swap the guard; whether that was done. A folder that can't be loaded leaves the old guard where it is."""
        async with self._lock:
            try:
                guard = await anyio.to_thread.run_sync(self._load)
            except (CharterError, Unavailable, OSError) as error:
                log.error("the guard was not swapped: %s", error)
                return False
            except Exception as error:
                log.error("the guard was not swapped (%s)", type(error).__name__, exc_info=error)
                return False
            self._scorer.swap(guard)
            log.info("new conversations are judged by %s (%s)", guard.name, guard.hash)
            return True

    def _begin(self) -> None:
        task = asyncio.get_running_loop().create_task(self.reload())
        self._tasks.add(task)  # the loop alone would let go of it
        task.add_done_callback(self._tasks.discard)
