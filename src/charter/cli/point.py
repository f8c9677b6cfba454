"""--point: which of a guard's two operating points judges."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Point = Annotated[
    Literal["quiet", "balanced"],
    typer.Option(help="Operating point of the guard: quiet flags little that is harmless, balanced finds more."),
]
