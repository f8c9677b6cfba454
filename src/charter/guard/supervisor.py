"""The supervisor of a scorer's process: starts it, and starts it again when it ends."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from charter.errors import GuardError

CALM_S = 10.0
"""A process that ended sooner is started again only after a pause."""
PAUSE_S = 2.0
log = logging.getLogger("charter.gateway")


class ScorerProcess:
    """Keeps one scorer's process running. Its socket outlives it."""

    def __init__(self, command: Sequence[str], *arguments: str) -> None:
        """Start it and wait until its guard is loaded.

        Args:
            command: what to run; it gets the number of the listening socket and then the arguments.

        Raises:
            GuardError: it could not load the guard.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="charter-")  # nobody else may enter it
        self.path = str(Path(self._folder.name) / "scorer")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(128)
        self._command, self._arguments = command, arguments
        self.restarts = 0
        self._stopping = False
        self._start()
        if sentence := self._failure():
            self.stop()
            raise GuardError(sentence)
        threading.Thread(target=self._watch, name="charter-supervisor", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        """End it for good."""
        self._stopping = True
        self._process.terminate()
        self._process.wait()
        self._listener.close()
        self._folder.cleanup()

    def _start(self) -> None:
        fd = self._listener.fileno()
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [*self._command, str(fd), *self._arguments],
            pass_fds=[fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the gateway, whose streams may still end
        )

    def _failure(self) -> str | None:
        """Why the process could not load its guard; None where it could. Waits until it says so."""
        assert self._process.stdout is not None
        try:
            said = json.loads(self._process.stdout.readline())
        except ValueError:
            return "the scorer's process ended before its guard was loaded; run `charter score` with this guard to see why"
        return None if said.get("ready") else str(said.get("sentence"))

    def _watch(self) -> None:
        while True:
            self._process.wait()
            if self._stopping:
                return
            self.restarts += 1
            log.error("the scorer's process ended (%s); starting it again", self._process.returncode)
            if time.monotonic() - self._started < CALM_S:
                time.sleep(PAUSE_S)
            if self._stopping:
                return
            self._start()
            if sentence := self._failure():
                log.error("the scorer's process can't load the guard: %s", sentence)


def start(guard: Path, point: str, lookahead: int, precision: str = "float32") -> ScorerProcess:
    """A scorer's process for a guard folder.

    Raises:
        GuardError: the guard can't be loaded.
    """
    wishes = json.dumps({"guard": os.fspath(guard), "point": point, "lookahead": lookahead, "precision": precision})
    return ScorerProcess([sys.executable, "-m", "charter.guard.scorer_process"], wishes)
