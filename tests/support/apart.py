"""A guard for a process of its own: flags a word, stalls at another, refuses a third; its hash stands in a file.

python apart.py FD FILE
"""

from __future__ import annotations

import socket
import sys
import time
import weakref
from pathlib import Path

from charter.errors import BackboneError, GuardError
from charter.guard.gathered import Load
from charter.models.segments import Segmenter
from charter.records import Turn, Verdict


class Guard:
    """Flags what its file says."""

    name, clauses = "apart", ("words",)

    def __init__(self, file: Path) -> None:
        self.hash, _, self.forbidden = file.read_text().partition(" ")
        if self.hash == "damaged":
            raise GuardError(f"{file}: is damaged")
        self.sessions: weakref.WeakSet[Session] = weakref.WeakSet()

    def __deepcopy__(self, memo: object) -> Guard:
        return self

    def open(self, turns: tuple[Turn, ...]) -> Session:
        if "endless" in turns[-1].content:
            raise BackboneError("the conversation is longer than the backbone's context of 3 tokens")
        return Session(self)

    def clause_scores(self, session: Session) -> dict[str, float]:
        return {"words": session.reply_verdict.score}

    def load(self) -> Load:
        return Load(state_bytes=len(self.sessions))


class Session:
    """One reply."""

    prompt_verdict = Verdict(False, 0.1, None, None)

    def __init__(self, guard: Guard) -> None:
        self._guard, self._segmenter = guard, Segmenter()
        self._judged, self._flagged = 0, False
        guard.sessions.add(self)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._guard.sessions.add(self)

    @property
    def reply_verdict(self) -> Verdict:
        return Verdict(True, 0.9, "words", self._judged) if self._flagged else Verdict(False, 0.2, None, None)

    def push(self, text: str) -> str:
        return self._passed(self._segmenter.push(text))

    def flush(self) -> str:
        return self._passed(self._segmenter.flush())

    def _passed(self, segments: list[str]) -> str:
        out = ""
        for segment in segments:
            if "molasses" in segment:
                time.sleep(60)
            self._judged += 1
            self._flagged = self._flagged or self._guard.forbidden in segment
            out += "" if self._flagged else segment
        return out


if __name__ == "__main__":
    from charter.guard.scorer_process import run

    run(socket.socket(fileno=int(sys.argv[1])), lambda: Guard(Path(sys.argv[2])))
