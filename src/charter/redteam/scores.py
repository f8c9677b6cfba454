"""The guard's verdicts that searches looked at, a line each: a killed run has nothing scored twice, and no prompt is scored twice in one.

Which guard they are of, the settings beside them say; `log.Log` has compared those before this file is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from charter.errors import DataError
from charter.records import Verdict, write_text
from charter.redteam.target import Turns

SCORES = "scores.jsonl"


class ScoreLog:
    """Verdicts by conversation, in a run's folder. The file is made with the first of them."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there.

        Raises:
            DataError: the file is damaged.
        """
        self.path = folder / SCORES
        self._known = dict(_read(self.path))

    def missing(self, prompts: Iterable[Turns]) -> list[Turns]:
        """Those without a verdict, each once."""
        return [turns for turns in dict.fromkeys(prompts) if digest(turns) not in self._known]

    def get(self, prompts: Iterable[Turns]) -> list[Verdict]:
        return [self._known[digest(turns)] for turns in prompts]

    def put(self, prompts: Sequence[Turns], verdicts: Sequence[Verdict]) -> None:
        """Keep verdicts; with the system when this returns."""
        found = {digest(turns): verdict for turns, verdict in zip(prompts, verdicts, strict=True)}
        self._known |= found
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(_line(sent, verdict) for sent, verdict in found.items())


def digest(turns: Turns) -> str:
    """Tells one conversation from another."""
    text = json.dumps([[t.role, t.content] for t in turns])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _line(sent: str, verdict: Verdict) -> str:
    return json.dumps({"sent": sent, "verdict": asdict(verdict)}, separators=(",", ":")) + "\n"


def _read(path: Path) -> Iterator[tuple[str, Verdict]]:
    if not path.is_file():
        return
    *lines, cut = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            yield row["sent"], Verdict(**row["verdict"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: the log of scores is damaged ({error}); remove the file, and they are scored again"
            ) from error
    if cut:  # by a kill
        write_text(path, "".join(line.decode() + "\n" for line in lines))
