"""A guard in another process, as the gateway sees it.

Whatever was open when the scorer's process died can't be scored any more: its next step raises `Unavailable`, and the gateway does what
--on-error says. What is opened meanwhile waits for the new process.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from charter.errors import Unavailable
from charter.guard.gathered import Load
from charter.guard.holdback import OpenGuard
from charter.guard.supervisor import ScorerProcess
from charter.guard.tokens import Part, TokenScore
from charter.guard.wire import Message, Wire, raised, verdict_of
from charter.records import Turn

PATIENCE_S = 600.0
"""Longest that an answer is waited for: the gateway's own limit comes first."""
log = logging.getLogger("charter.gateway")


class Gone(Unavailable):
    """The connection to the scorer's process is lost."""

    def __init__(self) -> None:
        super().__init__("the scorer's process has ended; it is being started again")


class Link:
    """A connection to the scorer's process, made again when it is lost."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._wire: Wire | None = None
        self._numbers = itertools.count(1)
        self._pending: dict[int, tuple[Wire, Future[Message]]] = {}
        self.lost = 0
        """Times that the process over there ended."""

    def wire(self) -> Wire:
        """The connection that there is, or a new one.

        Raises:
            Unavailable: nobody listens.
        """
        with self._lock:
            if self._wire is None:
                connection = socket.socket(socket.AF_UNIX)
                try:
                    connection.connect(self._path)
                except OSError as error:
                    raise Gone() from error
                self._wire = Wire(connection)
                threading.Thread(target=self._read, args=(self._wire,), name="charter-answers", daemon=True).start()
            return self._wire

    def number(self) -> int:
        """A new number, for a session."""
        return next(self._numbers)

    def ask(self, wire: Wire, do: str, **more: Any) -> Message:
        """One question and its answer, on the connection that the session was opened on.

        Raises:
            Unavailable: the connection is lost.
            CharterError, RuntimeError: what the guard raised.
        """
        number, answer = next(self._numbers), Future[Message]()
        with self._lock:
            if self._wire is not wire:
                raise Gone()
            self._pending[number] = wire, answer
        try:
            wire.send({"id": number, "do": do, **more})
            found = answer.result(PATIENCE_S)
        except (OSError, FutureTimeout) as error:
            raise Gone() from error
        finally:
            with self._lock:
                self._pending.pop(number, None)
        if "fault" in found:
            raise raised(found)
        return found

    def tell(self, wire: Wire, do: str, **more: Any) -> None:
        """Something that needs no answer, and may be lost."""
        with suppress(OSError):
            wire.send({"id": 0, "do": do, **more})

    def _read(self, wire: Wire) -> None:
        while (found := wire.receive()) is not None:
            with self._lock:
                asked = self._pending.pop(found.get("id", 0), None)
            if asked:
                asked[1].set_result(found)
        with self._lock:
            self._wire = None
            self.lost += 1
            lost = [number for number, (own, _) in self._pending.items() if own is wire]
            futures = [self._pending.pop(number)[1] for number in lost]
        wire.close()
        for future in futures:
            future.set_exception(Gone())


class RemoteSession:
    """Implements `guard.holdback.OpenGuard`: each step is a question to the scorer's process."""

    def __init__(self, link: Link, turns: tuple[Turn, ...], guard_hash: str) -> None:
        self._link, self._wire = link, link.wire()
        self._named()
        found = self.ask("open", guard=guard_hash, turns=[[turn.role, turn.content] for turn in turns])
        self.prompt_verdict, self.reply_verdict = verdict_of(found["prompt"]), verdict_of(found["reply"])
        self.hash = str(found["hash"])
        """Of the guard that judges."""
        self.told: Message | None = found.get("load")
        """The scorer's load when this was opened."""

    def _named(self) -> None:
        """Take a number. It is given back when this object goes, on a thread of its own: that may be in the middle of a `send`."""
        self._number = self._link.number()
        weakref.finalize(self, _close, self._link, self._wire, self._number).atexit = False

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteSession:
        twin = object.__new__(RemoteSession)
        twin.__dict__.update(self.__dict__)
        twin._named()
        self.ask("copy", to=twin._number)
        return twin

    def ask(self, do: str, **more: Any) -> Message:
        """Raises: as `Link.ask`."""
        return self._link.ask(self._wire, do, session=self._number, **more)

    def push(self, text: str) -> str:
        """Take a piece of the reply; returns the text that may leave now."""
        return self._step("push", text=text)

    def flush(self) -> str:
        """The reply has ended; returns the rest that may leave."""
        return self._step("flush")

    def _step(self, do: str, **more: Any) -> str:
        found = self.ask(do, **more)
        self.reply_verdict = verdict_of(found["reply"])
        return str(found["released"])


@dataclass(frozen=True)
class RemoteTokens:
    """Implements `guard.tokens.TellsTokens`, for a guard over there that does."""

    cutoffs: Mapping[Part, float]
    titles: Mapping[str, str]

    def token_scores(self, session: OpenGuard, part: Part, start: int) -> list[TokenScore]:
        """Raises: as `Link.ask`."""
        assert isinstance(session, RemoteSession)
        return [(int(chars), float(score)) for chars, score in session.ask("tokens", part=part, start=start)["tokens"]]


class RemoteGuard:
    """Implements `guard.holdback.GuardLike`."""

    def __init__(self, link: Link, process: ScorerProcess | None = None) -> None:
        """Ask who is there.

        Raises:
            Unavailable: nobody is.
        """
        self._link, self._process = link, process
        self._load = Load()
        found = link.ask(link.wire(), "hello")
        self.name, self.hash, self.clauses = str(found["name"]), str(found["hash"]), tuple(found["clauses"])
        self.guard = RemoteTokens(found["cutoffs"], found["titles"]) if "cutoffs" in found else None
        """What tells its tokens' scores (`guard.tokens.telling`)."""

    def open(self, turns: tuple[Turn, ...]) -> RemoteSession:
        """Judge a conversation and get ready for its reply.

        Raises:
            BackboneError: the conversation is longer than the context.
            Unavailable: there is no scorer, or it is full.
        """
        try:
            session = RemoteSession(self._link, turns, self.hash)
        except Gone:  # it had just died: the next one is asked
            session = RemoteSession(self._link, turns, self.hash)
        if session.hash != self.hash:
            log.warning("the scorer's process has another guard than before: %s is now %s", self.hash, session.hash)
            self.hash = session.hash
        self._load = Load(**session.told) if session.told else self._load
        return session

    def clause_scores(self, session: OpenGuard) -> dict[str, float]:
        """Highest calibrated probability of each restricted clause over all that the session has seen."""
        assert isinstance(session, RemoteSession)
        return {str(name): float(score) for name, score in session.ask("scores")["scores"].items()}

    def reloaded(self) -> RemoteGuard:
        """The guard as its folder is now; conversations that are open end on the one they began with.

        Raises:
            GuardError, BackboneError: the folder is damaged; the old guard stays.
        """
        self._link.ask(self._link.wire(), "reload")
        return RemoteGuard(self._link, self._process)

    def load(self) -> Load:
        """What the scorer had to do when a conversation was last opened: asking now would hold up whoever asks."""
        return replace(self._load, restarts=self._process.restarts if self._process else self._link.lost)


def _close(link: Link, wire: Wire, number: int) -> None:
    threading.Thread(target=link.tell, args=(wire, "close"), kwargs={"session": number}, daemon=True).start()
