"""Several gateways on one port: a supervisor that serves nothing itself, and forks its workers.

Each worker listens on a socket of its own with SO_REUSEPORT, made once it is ready, so the kernel spreads connections over those that
live. One that ends is started again. SIGTERM ends all, each when its streams have ended or their time is up; SIGHUP goes to all.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import secrets
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from charter.errors import CharterError
from charter.gateway import logs
from charter.gateway.tallies import fold
from charter.gateway.worker import Worker

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
LOOK_S = 0.5
CALM_S, PAUSE_S = 10.0, 2.0
"""A worker that ended sooner is started again only after a pause."""
END_S = 20.0
"""How long workers may take to end before they are killed."""
Body = Callable[[Worker, Callable[[], None]], None]
"""What a worker does; it calls back once it is about to serve."""
log = logging.getLogger("charter.gateway")


@dataclass
class Child:
    """A worker's process, as the supervisor sees it."""

    pid: int
    said: int
    """A pipe on which it says that it is ready, or why it can't be."""
    started: float
    told: str = ""

    @property
    def ready(self) -> bool:
        return self.told == "{}"


class Supervisor:
    """Keeps so many workers running, from `run` until it is told to stop. For a main thread."""

    def __init__(
        self, body: Body, n: int, changed: Callable[[], bool] | None = None, shared_scorer: bool = False, tls: bool = False
    ) -> None:
        """`changed` says whether the guards on disk are others than before: then the workers load them again."""
        self._body, self._n, self._changed, self._shared, self._tls = body, n, changed, shared_scorer, tls
        self._secret = secrets.token_urlsafe(32)
        self._children: dict[int, Child] = {}
        self._due: dict[int, float] = dict.fromkeys(range(n), 0.0)
        """When the workers that do not run are to be started."""
        self._served = self._stopping = self._hung_up = False

    def run(self) -> None:
        """Start the workers and keep them running.

        Raises:
            CharterError: the first of them can't serve.
        """
        logging.config.dictConfig(logs.config())
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._life, self._alive = os.pipe2(os.O_CLOEXEC)
        before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        wakeup = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        with tempfile.TemporaryDirectory(prefix="charter-workers-") as folder:  # nobody else may enter it
            self._folder = Path(folder)
            try:
                while not self._stopping:
                    self._tend()
                    self._sleep()
            finally:
                self._end()
                signal.set_wakeup_fd(wakeup)
                for number, handler in before.items():
                    signal.signal(number, handler)
                for pipe in (self._wake, self._waker, self._life, self._alive):
                    os.close(pipe)

    def _heard(self, number: int, _frame: object) -> None:
        self._stopping = self._stopping or number in (signal.SIGTERM, signal.SIGINT)
        self._hung_up = self._hung_up or number == signal.SIGHUP

    def _tend(self) -> None:
        """Whatever is due: bury, start, pass on."""
        for number, child in list(self._children.items()):
            self._listen_to(number, child)
        for number in [number for number, due in self._due.items() if due <= time.monotonic()]:
            del self._due[number]
            self._children[number] = self._start(number)
        if self._hung_up or (self._changed is not None and self._changed()):
            self._hung_up = False
            self._tell(signal.SIGHUP)

    def _listen_to(self, number: int, child: Child) -> None:
        """What a worker says, and whether it still lives."""
        pid, status = os.waitpid(child.pid, os.WNOHANG)  # asked first: what it said before its end is then there to be read
        if not child.told and select.select([child.said], [], [], 0)[0]:
            child.told = os.read(child.said, 4_096).decode()
        self._served = self._served or child.ready
        if pid == 0:
            return
        os.close(child.said)
        del self._children[number]
        ended = f"it ended ({os.waitstatus_to_exitcode(status)})"
        reason = str(json.loads(child.told).get("sentence", ended)) if child.told else ended
        if not self._served:
            raise CharterError(reason)
        log.error("worker %d: %s; starting another", number, reason)
        fold(self._worker(number))
        self._due[number] = time.monotonic() + (PAUSE_S if time.monotonic() - child.started < CALM_S else 0.0)

    def _worker(self, number: int) -> Worker:
        return Worker(number, self._n, self._folder, self._secret, self._shared, self._tls)

    def _start(self, number: int) -> Child:
        said, saying = os.pipe2(os.O_CLOEXEC)
        sys.stderr.flush()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal meant for the child must not run the supervisor's handler
        try:
            pid = os.fork()
            if pid == 0:
                self._be(number, saying, blocked)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(saying)
        return Child(pid, said, time.monotonic())

    def _be(self, number: int, saying: int, mask: set[signal.Signals | int]) -> NoReturn:
        """The worker itself. Never comes back into the supervisor's code, whatever happens."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in SIGNALS:
                signal.signal(
                    each, signal.SIG_IGN if each == signal.SIGHUP else signal.SIG_DFL
                )  # SIGHUP: not loaded yet, so nothing is old
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for pipe in (self._alive, self._wake, self._waker):
                os.close(pipe)
            threading.Thread(target=_end_with_parent, args=(self._life,), daemon=True).start()
            self._body(self._worker(number), lambda: _say(saying, {}))
            code = 0
        except CharterError as error:
            _say(saying, {"sentence": str(error)})
            code = 2
        except BaseException:
            log.exception("the worker failed")
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _sleep(self) -> None:
        """Until a signal comes, a while at most."""
        select.select([self._wake, *(child.said for child in self._children.values() if not child.told)], [], [], LOOK_S)
        try:
            while os.read(self._wake, 512):
                pass
        except BlockingIOError:
            pass

    def _tell(self, number: signal.Signals) -> None:
        for child in self._children.values():
            os.kill(child.pid, number)  # not waited for yet, so the id is still its own

    def _end(self) -> None:
        """End all workers and wait for them."""
        self._tell(signal.SIGTERM)
        deadline = time.monotonic() + END_S
        while self._children:
            for number, child in list(self._children.items()):
                if os.waitpid(child.pid, os.WNOHANG)[0]:
                    os.close(child.said)
                    del self._children[number]
            if self._children and time.monotonic() > deadline:
                self._tell(signal.SIGKILL)
            time.sleep(0.02)


def _say(pipe: int, told: dict[str, str]) -> None:
    os.write(pipe, json.dumps({name: text[:500] for name, text in told.items()}).encode())


def _end_with_parent(life: int) -> None:
    """Nobody writes to this pipe: it ends with the supervisor, however that came."""
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGTERM)
