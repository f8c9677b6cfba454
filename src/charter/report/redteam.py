"""The red team's section: redteam.json in, what a template shows out; and a page of its own for who ran nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from charter.records import write_text
from charter.report import figures
from charter.report.page import bar, interval, number, rate

KINDS = {
    "plain": "As asked", "family": "Families", "suite": "Suites", "injection": "Injection", "search": "Adaptive search", "attacker": "Attacker",
}  # fmt: skip
MOST = 40
"""Rows of a figure; the rest stands in the table alone."""


def section(told: Mapping[str, Any]) -> dict[str, Any]:
    """The context of the section: all of redteam.json, strategies by kind, and the figure as SVG (None where nothing was scored).

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    figures.require()
    counts = (told["universal"] or {}).get("strategies", {})
    groups: dict[str, dict[str, Any]] = {}
    for name, row in told["strategies"].items():
        groups.setdefault(KINDS[row["kind"]], {})[name] = {**row, "cleared": counts.get(name)}
    return {**told, "groups": {title: groups[title] for title in KINDS.values() if title in groups}, "figure": _figure(groups)}


def render(told: Mapping[str, Any], out: Path) -> None:
    """Write a page that holds the section alone, to the side and renamed.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    shown = section(told)
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": interval, "rate": rate, "number": number, "bar": bar}
    folder = resources.files("charter.report")
    style = (folder / "template.html").read_text(encoding="utf-8").partition("<style>")[2].partition("</style>")[0]
    source = (folder / "redteam.html").read_text(encoding="utf-8")
    write_text(out, environment.from_string(source).render({**shown, "style": Markup(style)}))


def _figure(groups: Mapping[str, Mapping[str, Any]]) -> str | None:
    shown: dict[str, dict[str, Any]] = {}
    left = MOST
    for title, rows in groups.items():
        scored = {f"{name}  ({row['success']['n']:,})": row["success"] for name, row in rows.items() if row["success"]}
        kept = dict(list(scored.items())[:left])
        left -= len(kept)
        if kept:
            shown[title] = kept
    if not shown:
        return None
    return figures.intervals(shown, {}, "redteam", "Share of attempts that succeeded, by strategy, with its interval")
