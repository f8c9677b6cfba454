"""Templates filled: one environment for all pages, and how a figure stands in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from charter.report.caveats import percent

if TYPE_CHECKING:
    from markupsafe import Markup

DASH = "\u2013"


def filled(template: str, context: Mapping[str, Any]) -> str:
    """A template of this folder with its context; text of others is escaped, a name that is missing is an error.

    Raises:
        ImportError: jinja2 is not installed; `figures.require` says so better.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("charter.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": interval, "rate": rate, "percent": percent, "number": number, "bar": bar}
    return environment.get_template(template).render(context)


def interval(figure: Mapping[str, Any]) -> Markup:
    """Value above its interval, 0.83 above 0.79 - 0.87; a dash where there is none."""
    return _cell(figure, 1, 2, "")


def rate(figure: Mapping[str, Any] | None) -> Markup:
    """The same in per cent."""
    return _cell(figure, 100, 1, " %")


def _cell(figure: Mapping[str, Any] | None, scale: int, digits: int, unit: str) -> Markup:
    from markupsafe import Markup

    if figure is None or figure["value"] is None:
        return Markup(DASH)
    value, low, high = (f"{scale * figure[key]:.{digits}f}" for key in ("value", "low", "high"))
    return Markup('{}{} <small class="ci">{}&thinsp;{}&thinsp;{}</small>').format(value, unit, low, DASH, high)


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands apart, or a dash."""
    return DASH if value is None else f"{value:,.{digits}f}"


def bar(figure: Mapping[str, Any]) -> str:
    """CSS variables of the small interval glyph in a table cell, in per cent."""
    return f"--low:{100 * figure['low']:.1f}%;--high:{100 * figure['high']:.1f}%;--at:{100 * figure['value']:.1f}%"
