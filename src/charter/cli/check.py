"""charter check: is a constitution sound?"""

from __future__ import annotations

import json
from typing import Annotated

import typer


def command(
    file: Annotated[str, typer.Argument(help="A constitution's YAML file, or the name of a shipped one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Validate a constitution; every complaint names file, line, clause and the mend."""
    from charter.constitution import load

    constitution = load(file)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "name": constitution.name,
                    "version": constitution.version,
                    "hash": constitution.hash,
                    "warnings": constitution.warnings,
                    "clauses": [{"id": c.id, "side": c.side, "counterpart": c.counterpart, "hash": c.hash} for c in constitution.clauses],
                }
            )
        )
        return
    for warning in constitution.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(
        f"{constitution.name} {constitution.version} is sound: {len(constitution.restricted)} restricted and "
        f"{len(constitution.permitted)} permitted clauses, hash {constitution.hash}"
    )
