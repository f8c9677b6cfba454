"""Figures as inline SVG whose text is text and whose colours are the page's: they follow light, dark and print by themselves.

matplotlib draws in seven stand-in colours; each is then replaced by the CSS variable that the page defines.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import MissingExtra
from charter.evaluation.run import SetResult
from charter.records import View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, RESTRICTED, HARMLESS, PAPER, SHADE = (f"#00000{n}" for n in range(1, 8))
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", RESTRICTED: "restricted", HARMLESS: "harmless", PAPER: "paper", SHADE: "shade"}
COLUMNS = 4
MAX_PANELS = 16
EDGE = 1e-4
"""Scores nearer to 0 or 1 are drawn at this distance: the logit axis has no end."""

PROBABILITIES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
"""Ticks of the logit axis."""

Interval = Mapping[str, Any]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def roc(labels: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """False-positive and true-positive rates at every distinct score, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    true = np.cumsum(labels[order])[last_of_tie] / labels.sum()
    false = np.cumsum(~labels[order])[last_of_tie] / (~labels).sum()
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def roc_panels(results: Sequence[SetResult], figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A ROC curve for each set, with the guard's operating point and its 95 % intervals; SVG.

    Args:
        results: sets that hold both classes.
        figures: the `sets` of evaluation.json.
    """
    figure, axes = _grid(len(results), height=2.2)
    for ax, result in zip(axes, results, strict=True):
        found = figures[result.name]
        false, true = roc(result.labels, result.scores)
        ax.plot([0, 1], [0, 1], color=LINE, linewidth=0.9, zorder=1)
        ax.fill_between(false, true, step="post", color=SHADE, linewidth=0, zorder=0)
        ax.step(false, true, where="post", color=INK, linewidth=1.3, zorder=2)
        x, y = found["fpr"], found["recall"]
        ax.plot([x["low"], x["high"]], [y["value"]] * 2, color=RESTRICTED, linewidth=1.4, zorder=3)
        ax.plot([x["value"]] * 2, [y["low"], y["high"]], color=RESTRICTED, linewidth=1.4, zorder=3)
        ax.plot([x["value"]], [y["value"]], "o", color=RESTRICTED, markeredgecolor=PAPER, markersize=6, zorder=4, clip_on=False)
        ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        ax.set_xticklabels(["0", ".5", "1"])
        ax.set_yticklabels(["0", ".5", "1"])
        _title(ax, result.name, f"AUROC {_interval(found['auroc'])}")
    _outer_labels(axes, "harmless flagged", "restricted caught")
    return _svg(figure, "roc", "ROC curves, one panel a set, with the guard's operating point")


def distributions(results: Sequence[SetResult], thresholds: Mapping[View, float]) -> str:
    """Scores of restricted items upwards and of harmless ones downwards, with the threshold, a panel a set; SVG.

    Args:
        thresholds: view to calibrated probability.
    """
    figure, axes = _grid(len(results), height=1.75)
    bins = np.linspace(_logit(EDGE), _logit(1 - EDGE), 37)
    for ax, result in zip(axes, results, strict=True):
        z, y = _logit(result.scores), result.labels
        for part, colour, sign in ((z[y], RESTRICTED, 1), (z[~y], HARMLESS, -1)):
            if len(part):
                share = np.histogram(part, bins)[0] / len(part)
                ax.bar(bins[:-1], sign * share, width=np.diff(bins), align="edge", color=colour, linewidth=0)
        highest = max(abs(v) for v in ax.get_ylim()) or 1.0
        ax.axhline(0, color=SOFT, linewidth=0.7)
        ax.axvline(float(_logit(thresholds[result.view])), color=INK, linewidth=1.1, linestyle=(0, (3, 2)))
        ax.set(xlim=(bins[0], bins[-1]), ylim=(-highest, highest), yticks=[])
        ax.set_xticks([float(_logit(p)) for p in PROBABILITIES], [f"{p:g}".removeprefix("0") for p in PROBABILITIES])
        ax.spines["left"].set_visible(False)
        _title(ax, result.name, f"{int(y.sum()):,} restricted, {int((~y).sum()):,} harmless")
    _outer_labels(axes, "highest probability", "")
    return _svg(figure, "scores", "Distributions of scores of restricted and harmless items, one panel a set, with the threshold")


def intervals(groups: Mapping[str, Mapping[str, Interval]], budgets: Mapping[str, float], name: str, what: str) -> str:
    """A dot and its 95 % interval for each row, in titled groups, on a square-root axis from 0 to 100 %; SVG.

    Args:
        groups: group title to row name to interval.
        budgets: group title to the rate that was promised there, drawn as a line.
    """
    from matplotlib.figure import Figure

    height = 0.5 + 0.225 * sum(len(group) + 1.4 for group in groups.values())
    figure = Figure(figsize=(8.8, height), facecolor="none")
    ax = figure.add_axes((0.30, 0.32 / height, 0.66, 1 - 0.4 / height))
    at, ticks = 0.0, dict[float, str]()
    for title, group in groups.items():
        ax.text(0, at, title, color=INK, fontsize=8.5, fontweight="bold", va="center", ha="right", transform=_beside(ax))
        start = at + 0.5
        for row, interval in group.items():
            at += 1
            ticks[at] = row
            ax.plot([interval["low"], interval["high"]], [at, at], color=HARMLESS, linewidth=2.2, solid_capstyle="butt", alpha=0.55)
            ax.plot([interval["value"]], [at], "o", color=HARMLESS, markeredgecolor=PAPER, markersize=6.5, clip_on=False, zorder=4)
        if title in budgets:
            ax.plot([budgets[title]] * 2, [start, at + 0.5], color=RESTRICTED, linewidth=1.1, linestyle=(0, (3, 2)))
        at += 1.4
    ax.set_xscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0)), np.square))
    ax.set(xlim=(0, 1), ylim=(at - 0.6, -0.8))
    ax.set_xticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1], ["0", "1 %", "5 %", "10 %", "25 %", "50 %", "75 %", "100 %"])
    ax.set_yticks(list(ticks), list(ticks.values()), parse_math=False)
    _quiet(ax)
    ax.grid(axis="x", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    return _svg(figure, name, what)


def _grid(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """Panels in rows of COLUMNS, in a figure as wide as the page."""
    from matplotlib.figure import Figure

    rows = ceil(panels / COLUMNS)
    figure = Figure(figsize=(8.8, rows * height + 0.2), facecolor="none", layout="constrained")
    axes = [figure.add_subplot(rows, COLUMNS, n + 1) for n in range(panels)]
    for ax in axes:
        _quiet(ax)
    return figure, axes


def _quiet(ax: Axes) -> None:
    ax.set_facecolor("none")
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    ax.tick_params(colors=SOFT, labelsize=8, length=0, pad=4)


def _title(ax: Axes, name: str, below: str) -> None:
    for text, size, colour, weight, up in ((name, 8.5, INK, "bold", 16), (below, 7.5, SOFT, "normal", 5)):
        ax.annotate(
            text,
            (0, 1),
            (0, up),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize=size,
            color=colour,
            fontweight=weight,
            parse_math=False,
        )


def _outer_labels(axes: Sequence[Axes], x: str, y: str) -> None:
    """Labels at the edge of the grid only."""
    for number, ax in enumerate(axes):
        if number + COLUMNS >= len(axes):
            ax.set_xlabel(x, fontsize=8, color=SOFT)
        if number % COLUMNS == 0 and y:
            ax.set_ylabel(y, fontsize=8, color=SOFT)


def _beside(ax: Axes) -> Any:
    """Coordinates just left of the axes across, data down."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    figure = ax.get_figure()
    assert figure is not None
    return blended_transform_factory(ax.transAxes, ax.transData) + ScaledTranslation(-4 / 72, 0, figure.dpi_scale_trans)


def _interval(interval: Interval) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} \u2013 {interval['high']:.2f})"


def _logit(p: Any) -> Any:
    clipped = np.clip(p, EDGE, 1 - EDGE)
    return np.log(clipped / (1 - clipped))


def _svg(figure: Figure, name: str, what: str) -> str:
    """The figure as an SVG element: no XML header, no fixed size, colours as CSS variables, the same bytes each time."""
    from matplotlib import rc_context

    page = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's fonts draw the text, not matplotlib's
        figure.savefig(page, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = page.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{what}" ', 1)
    referred = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in referred else "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def require() -> None:
    """Raise MissingExtra where the packages that draw and fill the page are not installed."""
    from importlib.util import find_spec

    if not (find_spec("matplotlib") and find_spec("jinja2")):
        raise MissingExtra("the report needs matplotlib and jinja2: pip install 'charter[report]'")
