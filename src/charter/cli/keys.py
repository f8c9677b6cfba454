"""charter keys: who may use a gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[Path, typer.Argument(help="The file of keys that `charter serve --keys` reads; made where there is none.")],
    add: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make a key of this name and print it, once: the file holds its hash.")
    ] = None,
    remove: Annotated[str | None, typer.Option(metavar="NAME", help="Take a key out; a running gateway notices within a second.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="The new key's limit.")] = None,
    streams: Annotated[int | None, typer.Option(min=1, help="Requests the new key may have open at once.")] = None,
    max_body: Annotated[int | None, typer.Option(min=1, help="Largest request of the new key's, in bytes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List a gateway's keys, or make or remove one."""
    from pydantic import ValidationError

    from charter.errors import DataError
    from charter.gateway.keys import Key, hashed, new_key, read_keys, write_keys

    keys = read_keys(file) if file.exists() or add is None else []
    if remove is not None:
        if remove not in {key.name for key in keys}:
            raise DataError(f"{file}: there is no key named {remove!r}")
        keys = [key for key in keys if key.name != remove]
    made: str | None = None
    if add is not None:
        if add in {key.name for key in keys}:
            raise DataError(f"{file}: there is a key named {add!r} already; choose another name, or --remove that one first")
        made = new_key()
        limits = {"requests_per_minute": requests_per_minute, "streams": streams, "max_body": max_body}
        try:
            keys = [*keys, Key(name=add, sha256=hashed(made), **limits)]
        except ValidationError as error:
            raise DataError(f"{add!r} can't name a key; use up to 64 letters, digits and any of . _ @ -") from error
    if add is not None or remove is not None:
        write_keys(file, keys)
    if as_json:
        typer.echo(json.dumps({"key": made, "keys": [key.model_dump(exclude={"sha256"}) for key in keys]}))
    elif made is not None:
        typer.echo(made)
    else:
        for key in keys:
            typer.echo(f"{key.name:<24}" + ", ".join(_limits(key.requests_per_minute, key.streams, key.max_body)))


def _limits(requests_per_minute: int | None, streams: int | None, max_body: int | None) -> list[str]:
    said = [(requests_per_minute, "requests a minute"), (streams, "at once"), (max_body, "bytes a request")]
    return [f"{n:,} {what}" for n, what in said if n is not None] or ["no limits of its own"]
