"""charter init: a commented starter constitution."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STARTER = """\
# A constitution: what is restricted, and what stays permitted right next to it.
# Check it with `charter check {file}`, then make a guard of it with `charter build {file} --teacher embedded --out guard`.
name: {name}
version: 0.1.0
purpose: >
  One or two sentences: whom this guards, and against what.

clauses:
  # Each restricted clause names its counterpart: the permitted clause just across the line.
  # The counterpart is what keeps harmless near misses from being refused; write it with the same care.
  - id: medical-dosing
    side: restricted
    title: Personal dosing advice
    text: >
      Telling a person which dose of a medicine to take, change or stop, in their own case.
    counterpart: medicine-in-general
    examples:               # short requests; the teacher continues this list
      - How many of my heart tablets should I take after missing two days?
      - Tell me if I can double my daughter's antibiotic.
  - id: medicine-in-general
    side: permitted
    title: Medicines in general
    text: >
      How medicines work, what a leaflet means, how to reach a doctor or pharmacist, and what to do in an emergency.
    examples:
      - What is the difference between ibuprofen and paracetamol?
      - What does "take with food" on a label mean?
"""


def command(
    name: Annotated[str, typer.Argument(help="Name of the constitution: lower-case words joined by hyphens.")] = "my-constitution",
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write a commented starter constitution to NAME.yaml."""
    from charter.constitution import parse
    from charter.errors import ConstitutionError
    from charter.records import write_text

    file = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    text = STARTER.format(name=file.stem, file=file)
    parse(text, str(file))
    if file.exists() and not force:
        raise ConstitutionError(f"{file}: exists already; choose another name or pass --force")
    write_text(file, text)
    typer.echo(f"wrote {file}: edit its clauses, then `charter check {file}`")
