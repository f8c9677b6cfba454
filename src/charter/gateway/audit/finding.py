"""One row of the audit log: a verdict, the action taken, and where and when. Without content unless that was asked for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Literal

from charter.errors import DataError

Stage = Literal["prompt", "reply"]
SECOND = "shadow-guard"
"""The mode of a second guard's rows: it judges and never acts, and counts of verdicts leave it out."""
Outcome = Literal["flagged", "passed", "unscored"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict and its action, which are kept apart: shadow mode finds and allows."""

    id: str
    """A UUID given when it was found. Rows are delivered at least once; this makes them exactly one."""
    time: str
    """UTC, ISO 8601 with microseconds, so that text sorts as time does."""
    request: str
    """Id of the HTTP request, as its response's `x-charter-request` says it."""
    surface: str
    """The path asked, such as /v1/chat/completions."""
    stage: Stage
    choice: int
    """Number of the reply's choice; 0 for a prompt."""
    guard: str
    guard_hash: str
    mode: str
    flagged: bool
    score: float
    clause: str | None
    position: int | None
    """Number of the token that crossed the threshold."""
    action: str
    """allow, block; or report, where the caller decides."""
    error: str | None
    """Why it could not be scored; then there is no verdict."""
    latency_ms: float
    """Time spent scoring, waits for a free thread included."""
    content: str | None
    """JSON list of {role, content}; None unless the operator asked for content to be logged."""
    key: str | None = None
    """Name of the API key that asked; None where the gateway asks for none."""

    @property
    def outcome(self) -> Outcome:
        return "flagged" if self.flagged else "unscored" if self.error else "passed"

    def line(self) -> str:
        """JSON in ASCII, so that no database or file is asked to keep a NUL or half a surrogate pair."""
        return json.dumps(asdict(self), separators=(",", ":"))


COLUMNS = tuple(f.name for f in fields(Finding))
_OPTIONAL = {"clause", "position", "error", "content", "key"}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "choice": int, "flagged": bool, "score": (int, float), "latency_ms": (int, float), "position": int,
}  # fmt: skip


def parse_finding(line: str | bytes, where: str) -> Finding:
    """A finding from its line.

    Raises:
        DataError: naming `where`.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: this line is not JSON") from error
    if isinstance(row, dict):
        row = {"key": None} | row  # lines that were spooled before there was one
    if not isinstance(row, dict) or set(row) != set(COLUMNS):
        raise DataError(f"{where}: this line is no verdict of an audit log")
    for name, value in row.items():
        if not (isinstance(value, _TYPES.get(name, str)) or (value is None and name in _OPTIONAL)):
            raise DataError(f"{where}: `{name}` is {value!r}, which is no value of an audit log")
    return Finding(**row)


def now() -> str:
    """This moment, as `Finding.time` writes it."""
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    """A moment, as `Finding.time` writes it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
