"""The guard off the event loop: its steps run in worker threads, a few at a time, within a time limit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from charter.errors import CharterError, Unavailable
from charter.gateway.counters import Counters
from charter.gateway.observer import Observer
from charter.gateway.settings import Settings
from charter.guard.holdback import GuardLike
from charter.records import Verdict

T = TypeVar("T")
UNSCORED = Verdict(False, 0.0, None, None)
"""Where scoring failed there is no verdict."""
log = logging.getLogger("charter.gateway")


class ScoringFailed(Exception):
    """The guard raised, took too long or broke its contract. Its message may be shown; the cause may hold content."""

    def __init__(self, sentence: str, clients_to_mend: bool = False) -> None:
        super().__init__(sentence)
        self.clients_to_mend = clients_to_mend


class Scorer:
    """Calls the guard in worker threads, a few at a time."""

    def __init__(self, guard: GuardLike, settings: Settings, counters: Counters, observer: Observer | None = None) -> None:
        self.guard, self.settings, self.counters = guard, settings, counters
        self.observer = observer or Observer(guard, settings, counters)
        self._limiter = anyio.CapacityLimiter(settings.score_threads)
        self._asked = 0

    def swap(self, guard: GuardLike) -> None:
        """Judge new conversations by another guard."""
        self.guard = self.observer.guard = guard
        if self.observer.metrics is not None:
            self.observer.metrics.serves(guard)

    async def call(self, step: Callable[..., T], *args: object) -> T:
        """One scoring step. After a failure its session must not be used any more: the thread may still be in it.

        Raises:
            ScoringFailed: the step raised, took too long, or too many wait already; counted.
        """
        if self._asked >= self.settings.score_threads + self.settings.max_waiting:
            raise self.failure(f"{self._asked:,} scoring steps are asked for already; try again later")
        self._asked += 1
        try:
            with anyio.fail_after(self.settings.score_timeout_s):
                return await anyio.to_thread.run_sync(step, *args, abandon_on_cancel=True, limiter=self._limiter)
        except TimeoutError as error:
            raise self.failure(f"scoring took longer than {self.settings.score_timeout_s:g} s", error) from error
        except Unavailable as error:
            raise self.failure(str(error), error) from error
        except CharterError as error:
            raise self.failure(f"the text can't be scored: {error}", error) from error
        except Exception as error:
            raise self.failure("scoring failed; the gateway's log names the fault", error) from error
        finally:
            self._asked -= 1

    def failure(self, sentence: str, cause: Exception | None = None) -> ScoringFailed:
        """A failure, counted, and logged without what the fault says, which may be content."""
        self.counters.errors += 1
        log.error("%s (%s)", sentence, type(cause).__name__)
        log.debug("the fault", exc_info=cause)
        return ScoringFailed(sentence, isinstance(cause, CharterError))
