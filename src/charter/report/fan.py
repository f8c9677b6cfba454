"""The forecast as a fan: the worst query's probability over the number of queries, with both of its intervals; SVG."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from charter.errors import NoData
from charter.report.figures import HARMLESS, INK, LINE, RESTRICTED, SHADE, SOFT, _quiet, _svg

FLOOR = -300.0
"""Probabilities below 1e-300 are drawn there."""


def fan(told: Mapping[str, Any]) -> str:
    """The forecasts of `charter.forecast.write.tell`, which should hold several n, and the largest probability that was seen.

    Raises:
        NoData: it holds fewer than two n.
    """
    from math import log10

    from matplotlib.figure import Figure

    rows = sorted(told["forecasts"], key=lambda at: at["n"])
    if len(rows) < 2:
        raise NoData("a fan needs forecasts at two numbers of queries at least")
    figure = Figure(figsize=(8.8, 3.2), facecolor="none", layout="constrained")
    ax = figure.add_subplot()
    _quiet(ax)
    n = [at["n"] for at in rows]
    logs = {
        key: [[log10(at[key][end]) if at[key][end] > 0 else FLOOR for at in rows] for end in ("low", "value", "high")]
        for key in ("maximum", "worst")
    }
    ax.fill_between(n, logs["maximum"][0], logs["maximum"][2], color=SHADE, linewidth=0)
    for edge in (logs["worst"][0], logs["worst"][2]):
        ax.plot(n, edge, color=HARMLESS, linewidth=1.0, linestyle=(0, (3, 2)))
    ax.plot(n, logs["worst"][1], color=INK, linewidth=1.5)
    seen = log10(told["largest"]) if told["largest"] > 0 else FLOOR
    ax.plot([told["m"]], [seen], "o", color=RESTRICTED, markersize=6)
    ax.annotate("largest seen", (told["m"], seen), (8, -3), textcoords="offset points", fontsize=8, color=RESTRICTED)
    ax.set_xscale("log")
    ax.minorticks_off()  # their colour would not be the page's
    ax.set_ylim(top=0)
    ax.grid(axis="y", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel("queries", fontsize=8, color=SOFT)
    ax.set_ylabel("worst query: log10 of its probability", fontsize=8, color=SOFT)
    level = f"{told['level']:.0%}"
    what = f"Worst query over the number of queries: line, its {level} interval (dashed), and where the worst itself will lie ({level}, shaded)"
    return _svg(figure, "forecast", what)
