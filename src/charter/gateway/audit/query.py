"""Questions to an audit log: counts by clause and by day, the queue of verdicts to review, decisions on them, and their export."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from charter.errors import AuditError, DataError, MissingExtra, NoData
from charter.gateway.audit.finding import SECOND, now
from charter.gateway.audit.store import Store, StoreDown
from charter.records import parse_turns, write_text

Decision = Literal["harmless", "restricted", "unclear"]
DECISIONS: tuple[str, ...] = get_args(Decision)
SHORTEST_ID = 6
_COUNTS = """COUNT(*), SUM(CASE WHEN flagged THEN 1 ELSE 0 END), SUM(CASE WHEN flagged AND action = 'block' THEN 1 ELSE 0 END),
    SUM(CASE WHEN error IS NULL THEN 0 ELSE 1 END), COUNT(DISTINCT request)"""
_SHOWN = "v.id, time, request, surface, stage, guard_hash, score, clause, position, action, content"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows are asked about."""

    since: str | None = None
    """First day, as 2026-11-21 (UTC)."""
    until: str | None = None
    """Last day."""
    clause: str | None = None
    key: str | None = None
    """Name of the API key that asked."""

    def where(self, *more: str) -> tuple[str, list[str]]:
        """The condition and its values."""
        given = [
            ("substr(time, 1, 10) >= ?", self.since),
            ("substr(time, 1, 10) <= ?", self.until),
            ("clause = ?", self.clause),
            ("key = ?", self.key),
        ]
        parts = [part for part, value in given if value is not None]
        return " AND ".join([*parts, f"mode <> '{SECOND}'", *more]), [value for _, value in given if value is not None]


@dataclass(frozen=True, slots=True)
class Flagged:
    """A flagged verdict that nobody has decided on."""

    id: str
    time: str
    request: str
    surface: str
    stage: str
    guard_hash: str
    score: float
    clause: str | None
    position: int | None
    action: str
    content: list[dict[str, str]] | None


def summary(store: Store, chosen: Chosen) -> dict[str, Any]:
    """Counts of all, by clause, by day, by guard and by API key, and what the reviews say, with intervals.

    Raises:
        NoData: no row is chosen.
        AuditError: the database does not answer.
    """
    where, values = chosen.where()
    total = _ask(store, f"SELECT {_COUNTS}, MIN(time), MAX(time) FROM charter_verdicts WHERE {where}", values)[0]
    if not total[0]:
        raise NoData("the audit log holds no verdict that was asked for; widen --since, --until, --clause or --key, or serve some requests")
    by = {
        name: _ask(store, f"SELECT {group}, {_COUNTS} FROM charter_verdicts WHERE {where}{more} GROUP BY 1 ORDER BY 1", values)
        for name, group, more in (
            ("clauses", "clause", " AND clause IS NOT NULL"), ("days", "substr(time, 1, 10)", ""), ("guards", "guard_hash", ""),
            ("keys", "key", " AND key IS NOT NULL"),
        )
    }  # fmt: skip
    reviews = _reviews(store, chosen)
    return {
        **_counts(total), "first": total[5], "last": total[6],
        "clauses": [{"clause": row[0], **_counts(row[1:]), "reviewed": _share(reviews.get(row[0], {}))} for row in by["clauses"]],
        "days": [{"day": row[0], **_counts(row[1:])} for row in by["days"]],
        "guards": [{"guard_hash": row[0], **_counts(row[1:])} for row in by["guards"]],
        "keys": [{"key": row[0], **_counts(row[1:])} for row in by["keys"]],
        "to_review": _waiting(store, chosen), "shadow_guards": _compared(store, chosen),
    }  # fmt: skip


def queue(store: Store, chosen: Chosen, most: int) -> list[Flagged]:
    """The flagged verdicts that nobody has decided on, the least certain first: there the wrong ones are most likely.

    Raises:
        AuditError: the database does not answer.
    """
    where, values = chosen.where("flagged", "r.id IS NULL")
    rows = _ask(store, f"SELECT {_SHOWN} FROM {_joined()} WHERE {where} ORDER BY score, v.id LIMIT {most:d}", values)
    return [Flagged(*(*row[:-1], json.loads(row[-1]) if row[-1] else None)) for row in rows]


def decide(store: Store, marks: Sequence[tuple[str, str]]) -> int:
    """Keep what a person found of verdicts, named by their ids or beginnings of them; returns how many.

    Raises:
        DataError: a decision is none, or an id is not that of exactly one verdict. Nothing is kept then.
        AuditError: the database does not answer.
    """
    found = []
    for start, decision in marks:
        if decision not in DECISIONS:
            raise DataError(f"{decision!r} is no decision; mark a verdict {', '.join(DECISIONS[:-1])} or {DECISIONS[-1]}")
        if len(start) < SHORTEST_ID or not start.isalnum():
            raise DataError(f"{start!r} is no id of a verdict; give at least its first {SHORTEST_ID} characters, as --review shows them")
        ids = _ask(store, "SELECT id FROM charter_verdicts WHERE id LIKE ? LIMIT 2", [f"{start}%"])
        if len(ids) != 1:
            raise DataError(f"{start}: {'several verdicts begin so; give more of the id' if ids else 'the audit log has no such verdict'}")
        found.append((ids[0][0], decision, now()))
    try:
        store.review(found)
    except StoreDown as error:
        raise _down(error) from error
    return len(found)


def export(store: Store, chosen: Chosen, path: Path) -> dict[str, int]:
    """Write what people decided on as labelled rows, which `charter evaluate --data` reads; returns counts.

    A row's label is the person's, never the guard's: a classifier that is trained on its own verdicts learns its own mistakes.
    `category` is the clause that fired, `side` where the row belongs: permitted rows are near misses of that clause.

    Raises:
        NoData: there is no decided row with content.
        DataError: a row's content is damaged.
        AuditError: the database does not answer.
    """
    where, values = chosen.where("r.decision <> 'unclear'")
    rows = _ask(store, f"SELECT {_SHOWN}, decision FROM {_joined()} WHERE {where} ORDER BY time, v.id", values)
    kept = [row for row in rows if row[-2]]
    if not kept:
        why = f"none of the {len(rows)} has content: serve with --log-content" if rows else "mark some, as --review shows them"
        raise NoData(f"there is no decided verdict to export ({why})")
    write_text(path, "".join(json.dumps(row) + "\n" for row in _rows(kept)))
    return {"written": len(kept), "without_content": len(rows) - len(kept)}


def _rows(found: Sequence[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for row in found:
        flagged = Flagged(*(*row[:-2], json.loads(row[-2])))
        harmful = row[-1] == "restricted"
        parse_turns(flagged.content, f"verdict {flagged.id}")
        yield {
            "id": flagged.id, "messages": flagged.content, "label": "harmful" if harmful else "safe", "category": flagged.clause,
            "kind": "prompt" if flagged.stage == "prompt" else "response", "side": "restricted" if harmful else "permitted",
            "guard_hash": flagged.guard_hash, "score": flagged.score, "time": flagged.time,
        }  # fmt: skip


def _reviews(store: Store, chosen: Chosen) -> dict[str, dict[str, int]]:
    """Decisions on flagged verdicts, by clause."""
    where, values = chosen.where("flagged", "r.id IS NOT NULL")
    out: dict[str, dict[str, int]] = {}
    for clause, decision, n in _ask(store, f"SELECT clause, decision, COUNT(*) FROM {_joined()} WHERE {where} GROUP BY 1, 2", values):
        out.setdefault(clause, {})[decision] = n
    return out


def _share(decisions: dict[str, int]) -> dict[str, Any] | None:
    """How many of the decided flags were wrong. Not the rate of false positives: the queue begins with the least certain."""
    harmless = decisions.get("harmless", 0)
    n = harmless + decisions.get("restricted", 0)
    if not n:
        return None
    try:
        from charter.statistics import clopper_pearson

        share = clopper_pearson(harmless, n).as_dict()
    except ImportError as error:
        raise MissingExtra("the interval of reviewed verdicts needs scipy: pip install 'charter[report]'") from error
    return {"harmless": harmless, "restricted": n - harmless, "unclear": decisions.get("unclear", 0), "share_harmless": share}


def _waiting(store: Store, chosen: Chosen) -> int:
    where, values = chosen.where("flagged", "r.id IS NULL")
    return int(_ask(store, f"SELECT COUNT(*) FROM {_joined()} WHERE {where}", values)[0][0])


def _compared(store: Store, chosen: Chosen) -> list[dict[str, Any]]:
    """How often a second guard and the first one flag the same prompt or reply."""
    where, values = chosen.where("error IS NULL")
    second = f"SELECT request, stage, choice, guard_hash, flagged FROM charter_verdicts WHERE mode = '{SECOND}'"
    counts = ", ".join(
        f"SUM(CASE WHEN {a} v.flagged AND {b} s.flagged THEN 1 ELSE 0 END)" for a, b in (("", ""), ("", "NOT"), ("NOT", ""), ("NOT", "NOT"))
    )
    rows = _ask(
        store,
        f"SELECT s.guard_hash, v.guard_hash, {counts} FROM (SELECT * FROM charter_verdicts WHERE {where}) v JOIN ({second}) s "
        "ON s.request = v.request AND s.stage = v.stage AND s.choice = v.choice GROUP BY 1, 2 ORDER BY 1, 2",
        values,
    )
    names = ("guard_hash", "first", "both", "first_alone", "second_alone", "neither")
    return [dict(zip(names, [*row[:2], *map(int, row[2:])], strict=True)) for row in rows]


def _joined() -> str:
    # `time` of the verdict stays the only one of that name
    return "charter_verdicts v LEFT JOIN (SELECT id, decision FROM charter_reviews) r ON r.id = v.id"


def _counts(row: Sequence[Any]) -> dict[str, int]:
    return dict(zip(("verdicts", "flagged", "blocked", "unscored", "requests"), map(int, row[:5]), strict=True))


def _ask(store: Store, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    try:
        return store.rows(statement, values)
    except StoreDown as error:
        raise _down(error) from error


def _down(error: StoreDown) -> AuditError:
    return AuditError(f"the audit log does not answer ({error}); is something else writing to it for long?")
