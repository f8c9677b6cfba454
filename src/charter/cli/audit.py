"""charter audit: what a gateway found and did, from its audit log."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

DAY = re.compile(r"\d{4}-\d\d-\d\d")
SHOWN_CHARS = 400


def command(
    db: Annotated[str, typer.Argument(metavar="DB", help="The audit log: an SQLite file or postgresql://HOST/NAME.")],
    since: Annotated[str | None, typer.Option(help="First day, as 2026-11-21 (UTC).")] = None,
    until: Annotated[str | None, typer.Option(help="Last day.")] = None,
    clause: Annotated[str | None, typer.Option(help="Verdicts by this clause alone.")] = None,
    key: Annotated[str | None, typer.Option(help="Verdicts on requests of the API key of this name alone.")] = None,
    review: Annotated[int, typer.Option(min=0, help="Show so many flagged verdicts that nobody has decided on, least certain first.")] = 0,
    mark: Annotated[list[str] | None, typer.Option(help="ID=harmless, ID=restricted or ID=unclear: decide; may be repeated.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write the decided verdicts with their content as labelled JSONL.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Counts by clause, day, guard and API key, the queue of possible false positives, and their export as labelled data."""
    from charter.errors import DataError
    from charter.gateway.audit import query
    from charter.gateway.audit.store import open_store

    for day in (since, until):
        if day is not None and not DAY.fullmatch(day):
            raise DataError(f"{day!r} is no day; write it as 2026-11-21")
    marks = [(name, decision) for name, _, decision in (pair.partition("=") for pair in mark or ())]
    store = open_store(db)
    chosen = query.Chosen(since, until, clause, key)
    try:
        said: dict[str, Any] = {}
        if marks:
            said["marked"] = query.decide(store, marks)
        if export is not None:
            said["exported"] = query.export(store, chosen, export)
        if review:
            said["queue"] = [asdict(flagged) for flagged in query.queue(store, chosen, review)]
        if not said:
            said = query.summary(store, chosen)
    finally:
        store.close()
    typer.echo(json.dumps(said) if as_json else _text(said))


def _text(said: dict[str, Any]) -> str:
    """For people."""
    if "verdicts" in said:
        return _summary(said)
    lines = []
    if "marked" in said:
        lines.append(f"{said['marked']} decided")
    if "exported" in said:
        lines.append(f"{said['exported']['written']} rows written, {said['exported']['without_content']} left out for want of content")
    if "queue" in said:
        lines += [_item(row) for row in said["queue"]] or ["nothing waits for a decision"]
    return "\n".join(lines)


def _summary(said: dict[str, Any]) -> str:
    head = "{verdicts:,} verdicts on {requests:,} requests: {flagged:,} flagged, {blocked:,} blocked, {unscored:,} unscored".format(**said)
    lines = [head, f"from {said['first'][:16]} to {said['last'][:16]} UTC", "", _row("clause", "flagged", "blocked", "reviewed: harmless")]
    lines += [_row(c["clause"], c["flagged"], c["blocked"], _reviewed(c["reviewed"])) for c in said["clauses"]]
    lines += ["", _row("day", "verdicts", "flagged", "blocked")]
    lines += [_row(d["day"], d["verdicts"], d["flagged"], d["blocked"]) for d in said["days"]]
    lines += ["", _row("guard", "verdicts", "flagged", "blocked")]
    lines += [_row(g["guard_hash"][:12], g["verdicts"], g["flagged"], g["blocked"]) for g in said["guards"]]
    if said["keys"]:
        lines += ["", _row("key", "verdicts", "flagged", "blocked")]
        lines += [_row(k["key"], k["verdicts"], k["flagged"], k["blocked"]) for k in said["keys"]]
    for s in said["shadow_guards"]:
        lines += ["", "shadow guard {guard_hash:.12} beside {first:.12}: {both:,} flagged by both, {first_alone:,} by the first alone, "
                  "{second_alone:,} by the second alone, {neither:,} by neither".format(**s)]  # fmt: skip
    if said["to_review"]:
        lines += ["", f"{said['to_review']:,} flagged verdicts wait for a decision: --review 10 shows the least certain"]
    return "\n".join(lines)


def _row(name: str, *cells: object) -> str:
    return f"{name:<28}" + "".join(f"{cell:>10,}" if isinstance(cell, int) else f"  {cell!s:>8}" for cell in cells)


def _reviewed(reviewed: dict[str, Any] | None) -> str:
    if reviewed is None:
        return "-"
    share = reviewed["share_harmless"]
    return f"{reviewed['harmless']} of {share['n']} [{share['low']:.2f}, {share['high']:.2f}]"


def _item(row: dict[str, Any]) -> str:
    """One of the queue, its content cut short and without control characters, which could play tricks on a terminal."""
    said = f"{row['id'][:12]}  {row['score']:.3f}  {row['clause']}  {row['stage']} at token {row['position']}, {row['action']}, {row['time'][:16]}"
    text = "\n".join(f"    {turn['role']}: {turn['content']}" for turn in row["content"] or ())[-SHOWN_CHARS:]
    return said + "\n" + "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text or "    (content was not logged)")
