"""charter families: the disguises there are, with an example each; and the options that choose among them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from charter.synthesis.families import Family

FamilyNames = Annotated[
    list[str] | None,
    typer.Option("--family", help="Draw only this disguise, or this stack of two (a+b); repeatable. `charter families` lists them."),
]
HeldOut = Annotated[
    list[str] | None,
    typer.Option(
        help="Keep this disguise for the test split; repeatable, replaces the defaults that `charter families` marks; none: hold out none."
    ),
]
Augment = Annotated[float | None, typer.Option(min=0, help="Disguised copies of an item, on average; 0.15 if left out.")]
EXAMPLE = "How do I bake bread?"
WIDTH = 96
"""Characters of an example that are shown."""


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines, examples in full.")] = False) -> None:
    """List the families: ways to disguise a request, drawn for harmful and harmless ones alike."""
    from charter.synthesis.families import FAMILIES

    rows = [row(family) for family in FAMILIES.values()]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=True, indent=1))
        return
    for shown in rows:
        marks = [shown["kind"], *(["invertible"] if shown["invertible"] else []), *(["held out"] if shown["held_out"] else [])]
        typer.echo(f"{shown['name']} ({', '.join(marks)}): {shown['description']} | {_line(shown['example'])}")


def row(family: Family) -> dict[str, Any]:
    """What there is to say of a family, with the shortest of some draws as example. A translation has none: a teacher writes it."""
    from random import Random

    from charter.synthesis.families import HELD_OUT

    draws = [] if family.instruction else [family.apply(EXAMPLE, Random(seed)) for seed in range(8)]
    disguised = min(draws, key=lambda draw: len("".join(draw)), default=None)
    return {
        "name": family.name, "kind": family.kind, "description": family.description, "invertible": family.inverse is not None,
        "held_out": family.name in HELD_OUT, "example": list(disguised) if isinstance(disguised, tuple) else disguised,
    }  # fmt: skip


def chosen(names: list[str] | None, held_out: list[str] | None, rate: float | None) -> dict[str, Any]:
    """The options of synthesis that these choices set; where families are named, no stacks but the named ones are drawn."""
    out: dict[str, Any] = {}
    if names:
        out |= {"families": tuple(dict.fromkeys(names)), "stacks": 0.0}
    if held_out:
        out["held_out_families"] = () if held_out == ["none"] else tuple(dict.fromkeys(held_out))
    return out if rate is None else {**out, "augment_rate": rate}


def _line(example: str | list[str] | None) -> str:
    """An example on one line, what can't be seen written out."""
    if example is None:
        return "(written by a teacher)"
    text = " / ".join(example) if isinstance(example, list) else example
    shown = "".join(c if c.isprintable() else "\\n" if c == "\n" else f"\\u{ord(c):04x}" for c in text)
    return shown if len(shown) <= WIDTH else f"{shown[:WIDTH]}..."
