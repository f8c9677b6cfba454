"""The red team's section: redteam.json in, what redteam_body.html shows out; on a page of its own, and in the evaluation's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from charter.errors import DataError
from charter.records import parse_object, write_text
from charter.redteam.markdown import markdown
from charter.redteam.results import SCHEMA
from charter.redteam.write import JSON
from charter.report import figures
from charter.report.filling import filled

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
    groups = {title: groups[title] for title in KINDS.values() if title in groups}
    return {**told, "groups": groups, "figure": _figure(groups)}


def beside(folder: Path, guard_hash: str) -> dict[str, Any] | None:
    """The redteam.json that `charter redteam` left in a folder, with a caution where it attacked another guard; None where there is none.

    Raises:
        DataError: it is not one, or of another version.
    """
    path = folder / JSON
    if not path.is_file():
        return None
    told = parse_object(path.read_text(encoding="utf-8"), str(path))
    try:
        markdown(told)
        whole = told["schema"] == SCHEMA
    except (KeyError, TypeError, AttributeError, ValueError):
        whole = False
    if not whole:
        raise DataError(f"{path}: is no report of this version of `charter redteam`; move it away, or run `charter redteam` again")
    if (told["target"]["guard"] or {}).get("hash") != guard_hash:
        told["cautions"].insert(
            0, f"It attacked {told['target']['name']}, which is not the guard of this report: nothing above carries over."
        )
    return told


def render(told: Mapping[str, Any], out: Path) -> None:
    """Write a page that holds the section alone, to the side and renamed.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    shown = section(told)
    from markupsafe import Markup

    template = (resources.files("charter.report") / "template.html").read_text(encoding="utf-8")
    style = template.partition("<style>")[2].partition("</style>")[0]
    write_text(out, filled("redteam.html", {"redteam": shown, "style": Markup(style)}))


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
