"""charter diff: what changed between two constitutions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def command(
    old: Annotated[str, typer.Argument(help="A constitution: a file or a shipped name.")],
    new: Annotated[str, typer.Argument(help="The other one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Name the clauses that differ: those whose data must be made anew. Exit code 1 where there are any."""
    from charter.constitution import diff, load

    before, after = load(old), load(new)
    changes = diff(before, after)
    if as_json:
        typer.echo(json.dumps([asdict(change) for change in changes]))
    else:
        for change in changes:
            typer.echo(f"{change.kind:8} {change.clause}" + (f" ({', '.join(change.fields)})" if change.fields else ""))
        anew = sum(change.kind != "removed" for change in changes)
        if changes:
            typer.echo(f"to regenerate: {anew} {'clause' if anew == 1 else 'clauses'}, {len(after.clauses) - anew} unchanged")
        else:
            typer.echo("no clause differs")
    raise typer.Exit(1 if changes else 0)
