"""What a gateway and its scorer's process say to each other: JSON objects on a local socket, each after its length in four bytes.

    {"id": 7, "do": "push", "session": 3, "text": " word"}    ->    {"id": 7, "released": " wo", "reply": {...}}
    {"id": 8, "do": "open", ...}                              ->    {"id": 8, "fault": "BackboneError", "sentence": "..."}

Answers come in any order. Of a fault that is nobody's mistake only the kind goes over: what it says may be content.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import Any

from charter.errors import BackboneError, CharterError, GuardError, Unavailable
from charter.records import Turn, Verdict

MOST_BYTES = 64 * 2**20
_KNOWN: dict[str, type[Exception]] = {kind.__name__: kind for kind in (BackboneError, CharterError, GuardError, Unavailable)}
Message = dict[str, Any]


class Wire:
    """One end of a connection. Anybody may send, one reads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._sending = connection, threading.Lock()
        self._file = connection.makefile("rb")

    def send(self, message: Message) -> None:
        """Raises: OSError, where the other end is gone."""
        data = json.dumps(message, separators=(",", ":")).encode()
        with self._sending:
            self._connection.sendall(len(data).to_bytes(4, "big") + data)

    def receive(self) -> Message | None:
        """The next message; None where the other end is gone, or says what is none."""
        try:
            head = self._file.read(4)
            size = int.from_bytes(head, "big")
            if len(head) < 4 or size > MOST_BYTES:
                return None
            data = self._file.read(size)
            message = json.loads(data) if len(data) == size else None
        except (OSError, ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """End the connection; whoever reads it is told so."""
        with suppress(OSError):  # the other end may have been faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def fault_of(error: Exception) -> Message:
    """What is told of a fault."""
    kind = next((name for name, known in _KNOWN.items() if type(error) is known), None)
    kind = kind or ("Unavailable" if isinstance(error, Unavailable) else "CharterError" if isinstance(error, CharterError) else None)
    return {"fault": kind or type(error).__name__, "sentence": str(error) if kind else ""}


def raised(answer: Message) -> Exception:
    """The fault that an answer tells of."""
    kind = _KNOWN.get(str(answer["fault"]))
    return kind(str(answer.get("sentence", ""))) if kind else RuntimeError(f"{answer['fault']} in the scorer's process")


def written(verdict: Verdict) -> Message:
    """A verdict as it goes over."""
    score, position = float(verdict.score), verdict.position
    return {
        "flagged": bool(verdict.flagged),
        "score": score,
        "clause": verdict.clause,
        "position": position if position is None else int(position),
    }


def verdict_of(found: Message) -> Verdict:
    """A verdict that came over."""
    return Verdict(bool(found["flagged"]), float(found["score"]), found["clause"], found["position"])


def turns_of(found: list[list[str]]) -> tuple[Turn, ...]:
    """A conversation that came over."""
    return tuple(Turn(role, content) for role, content in found)
