"""The scorer's own process: a guard behind a local socket, for as long as whoever started it holds its standard input open.

    python -m charter.guard.scorer_process FD '{"guard": "general", "point": "quiet", "lookahead": 0}'

FD is a listening socket that outlives this process: what connects while it is started again waits for the next one.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from charter.errors import CharterError, Unavailable
from charter.guard.holdback import GuardLike, OpenGuard
from charter.guard.tokens import telling
from charter.guard.wire import Message, Wire, fault_of, turns_of, written

THREADS = 64
"""Steps at once; streams that share a forward each have one."""
log = logging.getLogger("charter.scorer")


class Scoring:
    """The guard that new sessions open on, and how it is loaded again."""

    def __init__(self, load: Callable[[], GuardLike]) -> None:
        """Raises: GuardError, BackboneError."""
        self._load, self.guard = load, load()
        self._loading = threading.Lock()
        self._loaded_at = 0.0
        self._refused: Exception | None = None
        """Why the last load, begun at that moment, came to nothing."""
        self.known = weakref.WeakValueDictionary({self.guard.hash: self.guard})
        """By hash: those with open sessions too, so that another text of the same reply is judged by the guard of the first."""
        self.pool = ThreadPoolExecutor(THREADS)

    def reload(self) -> None:
        """Open sessions stay on the guard that they began with. Several gateways may ask at once: whoever had to wait for a load that
        began after it asked takes what came of that one.

        Raises:
            GuardError, BackboneError: the guard stays the one it was.
        """
        asked = time.monotonic()
        with self._loading:
            if self._loaded_at <= asked:
                self._loaded_at, self._refused = time.monotonic(), None
                try:
                    self.guard = self._load()
                    self.known[self.guard.hash] = self.guard
                except Exception as error:
                    self._refused = error
            if self._refused is not None:
                raise self._refused


class Connection:
    """One gateway's sessions."""

    def __init__(self, scoring: Scoring, connection: socket.socket) -> None:
        self._scoring, self._wire = scoring, Wire(connection)
        self._sessions: dict[int, tuple[GuardLike, OpenGuard]] = {}

    def serve(self) -> None:
        """Answer until the gateway goes away; its sessions go with it."""
        while (asked := self._wire.receive()) is not None:
            if asked.get("do") == "close":
                self._sessions.pop(asked["session"], None)
            else:
                self._scoring.pool.submit(self._answer, asked)
        self._sessions.clear()
        self._wire.close()

    def _answer(self, asked: Message) -> None:
        try:
            answer = getattr(self, f"do_{asked['do']}")(asked)
        except Exception as error:
            log.debug("the fault", exc_info=error)
            answer = fault_of(error)
        with suppress(OSError):  # the gateway may have gone away
            self._wire.send({"id": asked["id"], **answer})

    def do_hello(self, _asked: Message) -> Message:
        guard = self._scoring.guard
        tells = telling(guard)
        told = {"cutoffs": dict(tells.cutoffs), "titles": dict(tells.titles)} if tells else {}
        return {"name": guard.name, "hash": guard.hash, "clauses": list(guard.clauses), **told}

    def do_reload(self, asked: Message) -> Message:
        self._scoring.reload()
        return self.do_hello(asked)

    def do_open(self, asked: Message) -> Message:
        guard = self._scoring.known.get(asked["guard"], self._scoring.guard)
        session = guard.open(turns_of(asked["turns"]))
        self._sessions[asked["session"]] = guard, session
        load = getattr(guard, "load", None)
        told = {"load": asdict(load())} if load else {}
        return {"prompt": written(session.prompt_verdict), "reply": written(session.reply_verdict), "hash": guard.hash, **told}

    def do_push(self, asked: Message) -> Message:
        return self._released(asked, lambda session: session.push(asked["text"]))

    def do_flush(self, asked: Message) -> Message:
        return self._released(asked, lambda session: session.flush())

    def do_copy(self, asked: Message) -> Message:
        """Another session that goes on by itself from here."""
        guard, session = self._found(asked)
        self._sessions[asked["to"]] = guard, copy.deepcopy(session)
        return {}

    def do_scores(self, asked: Message) -> Message:
        guard, session = self._found(asked)
        return {"scores": guard.clause_scores(session)}

    def do_tokens(self, asked: Message) -> Message:
        """Each token's score in a part of a session, for the page that shows them."""
        guard, session = self._found(asked)
        tells = telling(guard)
        if tells is None:
            raise Unavailable("this guard does not tell its tokens' scores")
        return {"tokens": tells.token_scores(session, asked["part"], asked["start"])}

    def _released(self, asked: Message, step: Callable[[OpenGuard], str]) -> Message:
        session = self._found(asked)[1]
        return {"released": step(session), "reply": written(session.reply_verdict)}

    def _found(self, asked: Message) -> tuple[GuardLike, OpenGuard]:
        found = self._sessions.get(asked["session"])
        if found is None:
            raise Unavailable("the scorer's process does not know this stream any more")
        return found


def run(listener: socket.socket, load: Callable[[], GuardLike]) -> None:
    """Load the guard, say so in a line on the standard output, and answer for ever."""
    with os.fdopen(os.dup(1), "w") as said:
        os.dup2(2, 1)  # whatever else a library prints is for the log
        try:
            scoring = Scoring(load)
        except CharterError as error:
            said.write(json.dumps(fault_of(error)) + "\n")
            raise SystemExit(2) from error
        said.write('{"ready":true}\n')
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=Connection(scoring, connection).serve, daemon=True).start()


def load_gathered(asked: dict[str, Any]) -> GuardLike:
    """The guard that a command line names."""
    from charter.guard.folder import load
    from charter.guard.gathered import gathered
    from charter.guard.precision import at_precision

    guard = at_precision(load(Path(asked["guard"]), point=asked["point"]), asked["precision"])
    return gathered(replace(guard, lookahead=asked["lookahead"]))


def _end_with_parent() -> None:
    """Nobody writes to the standard input: it ends when whoever started this process does, however that came."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    wishes = json.loads(sys.argv[2])
    run(socket.socket(fileno=int(sys.argv[1])), lambda: load_gathered(wishes))
