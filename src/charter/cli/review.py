"""charter review: the least certain items, one by one, for a person to keep, flip or drop."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from charter.synthesis.review import Doubt, Walk


def command(
    data: Annotated[Path, typer.Argument(help="Folder written by `charter synthesize`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the list with the decisions so far, and ask nothing.")] = False,
) -> None:
    """Go through the items whose label is least certain. A key each; every decision is kept at once and applied at the end."""
    from charter.synthesis.review import Walk

    walk = Walk(data)
    if as_json:
        typer.echo(
            json.dumps([asdict(d) | {"decision": made.choice if (made := walk.decisions.get(d.key)) else None} for d in walk.listed])
        )
        return
    try:
        _ask(walk)
    except (EOFError, KeyboardInterrupt):
        typer.echo()
    changed = walk.finish()
    typer.echo(
        f"{sum(d.key in walk.decisions for d in walk.listed)} of {len(walk.listed)} decided; {changed:,} rows of the examples went or changed"
    )


def _ask(walk: Walk) -> None:
    """Until the list ends or the person does."""
    shown = -1
    while (doubt := walk.current) is not None:
        flip = walk.counterpart(doubt) is not None
        if walk.place != shown:
            typer.echo(_shown(walk, doubt))
        shown = walk.place
        typer.echo("[k]eep" + (" [f]lip" if flip else "") + " [d]rop [s]kip [u]ndo [q]uit: ", nl=False)
        key = _key()
        typer.echo(key if sys.stdin.isatty() and key.isprintable() else "")
        if key == "q":
            return
        if not _done(walk, key):
            typer.echo(_plain({"f": "it has no clause across the line to go to", "u": "nothing to undo"}.get(key, "there is no such key")))


def _done(walk: Walk, key: str) -> bool:
    """Do what the key says; False where that can't be."""
    match key:
        case "k":
            return walk.choose("keep")
        case "f":
            return walk.choose("flip")
        case "d":
            return walk.choose("drop")
        case "s":
            walk.skip()
            return True
        case "u":
            return walk.undo()
    return False


def _key() -> str:
    """One key from a terminal, the first letter of a line elsewhere.

    Raises:
        EOFError: the input ended.
    """
    if sys.stdin.isatty():
        return typer.getchar().lower()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.strip()[:1].lower()


def _shown(walk: Walk, doubt: Doubt) -> str:
    """The item with its clause and what lies next to it."""
    lines = [f"\n{walk.place + 1} of {len(walk.listed)}: {doubt.slice}, probability of its label {doubt.probability:.2f}"]
    clause, counterpart = walk.clause(doubt), walk.counterpart(doubt)
    if clause:
        lines.append(f"  {clause.side}: {clause.title}. {clause.text}")
    if counterpart:
        lines.append(f"  across the line, {counterpart.side}: {counterpart.title}. {counterpart.text}")
    if doubt.nearest and (counterpart is None or doubt.nearest != counterpart.id):
        lines.append(f"  nearest other clause: {doubt.nearest}")
    lines += [f"{turn['role']}: {turn['content']}" for turn in doubt.turns]
    return _plain("\n".join(lines))


def _plain(text: str) -> str:
    """Without control characters, which could play tricks on a terminal, nor what it can't print."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
