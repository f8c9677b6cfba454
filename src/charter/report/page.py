"""Evaluation in, report.html out: one file without links or scripts that reads in light, dark and on paper."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from charter.evaluation.run import Results, SetResult
from charter.guard.folder import Guard
from charter.records import parse_object, write_text
from charter.report import figures, redteam
from charter.report.caveats import HELD_OUT, caveats
from charter.report.fan import fan
from charter.report.filling import filled
from charter.report.heatmap import heat_map
from charter.report.worst import false_alarms, misses

ORDINARY, NEAR, PUBLIC, REPLIES, REFUSALS = GROUPS = (
    "Ordinary prompts",
    "Near misses",
    "Sets by others",
    "Harmless replies",
    "Replies to restricted prompts",
)
"""Slices by what a false positive on them means."""
COSTLY = 0.5
"""Overhead from which a guard stops being a small thing beside its upstream."""


def render(evaluation: dict[str, Any], scores: Results, guard: Guard, out: Path) -> None:
    """Write the page to the file `out`, to the side and renamed.

    Args:
        evaluation: what `evaluation.write.measure` wrote.
        scores: the verdicts behind it.
        guard: scores the one exchange that is shown token by token.

    Raises:
        MissingExtra: matplotlib or jinja2 is not installed.
    """
    figures.require()
    attacked = redteam.beside(out.parent, evaluation["guard"]["hash"])
    beside = {
        "redteam": redteam.section(attacked) if attacked else None,
        "forecast": forecast_part(_beside(out.with_name("forecast.json"))),
    }
    write_text(out, filled("template.html", {**_text_parts(evaluation, scores, guard), **_figures(evaluation, scores, guard), **beside}))


def forecast_part(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page says of a forecast that `charter forecast --json` told; None where there is none with two numbers of queries."""
    if told is None or len(told.get("forecasts", ())) < 2:
        return None
    return {
        "figure": fan(told),
        "source": f"Extrapolated from {told['m']:,} queries by charter forecast.",
        "m": told["m"],
        "level": told["level"],
        "warnings": told.get("warnings", ()),
    }


def _beside(path: Path) -> dict[str, Any] | None:
    """A file that another command may have left beside the page.

    Raises:
        DataError: it is there and holds no JSON object.
    """
    return parse_object(path.read_text(encoding="utf-8"), str(path)) if path.is_file() else None


def _peers() -> dict[str, Any]:
    return parse_object((resources.files("charter.report") / "peers.json").read_text(encoding="utf-8"), "peers.json")


def _text_parts(evaluation: dict[str, Any], scores: Results, guard: Guard) -> dict[str, Any]:
    return {
        **{
            key: evaluation[key]
            for key in ("guard", "seed", "sets", "slices", "families", "clauses", "streaming", "cost", "stages", "command")
        },
        "headline": headline(evaluation),
        "caveats": caveats(evaluation),
        "views": guard.record.views,
        "points": guard.thresholds,
        "n_examples": guard.record.n_examples,
        "near_miss_budget": guard.budgets[1],
        "backbone": guard.record.backbone,
        "layers": guard.record.layers,
        "titles": {c.id: c.title for c in guard.constitution.clauses},
        "languages": evaluation.get("languages", {}),
        "held_out": evaluation.get("held_out"),
        "left_one_out": evaluation.get("leave_one_family_out"),
        "against": evaluation.get("against"),
        "missed": misses(scores),
        "alarms": false_alarms(scores),
        "peers": _peers(),
        "heat": heat_map(guard, scores),
        "groups": slice_groups(evaluation),
        "n_items": sum(len(s.items) for s in scores.sets),
        "costly": COSTLY,
    }


def _figures(evaluation: dict[str, Any], scores: Results, guard: Guard) -> dict[str, Any]:
    """The figures as SVG; None where there is nothing to draw."""
    both = [s for s in scores.sets if s.labels.any() and not s.labels.all()]
    shown = _largest(both or list(scores.sets))
    thresholds = {view: policy.threshold for view, policy in guard.policies.items()}
    thresholds["exchange"] = thresholds[guard.cascade.reply_views[0]]  # the view that the sets of replies go by
    ordinary, near = guard.budgets
    budgets = dict.fromkeys(GROUPS, ordinary) | {NEAR: near}
    groups = {
        title: {f"{name}  ({row['n']:,})": row["fpr"] for name, row in group.items()} for title, group in slice_groups(evaluation).items()
    }
    return {
        "roc": figures.roc_panels(_largest(both), evaluation["sets"]) if both else None,
        "distributions": figures.distributions(shown, thresholds),
        "slices_figure": figures.intervals(groups, budgets, "slices", "False-positive rate of each slice with its interval")
        if groups
        else None,
        "not_shown": max(0, len(both or scores.sets) - figures.MAX_PANELS),
    }


def headline(evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The set that the first figures speak of: held-out prompts, else held-out replies, else the largest set with both classes."""
    sets = evaluation["sets"]
    ranked = [name for name in HELD_OUT if name in sets]
    ranked += sorted((name for name in sets if name not in ranked), key=lambda name: -sets[name]["n"])
    name = next((name for name in ranked if sets[name]["auroc"]["value"] is not None), None)
    return {"name": name, **sets[name]} if name else None


def slice_groups(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Group title to slice to its row; within a group the highest rate first."""
    groups: dict[str, dict[str, Mapping[str, Any]]] = {title: {} for title in GROUPS}
    for name, row in sorted(evaluation["slices"].items(), key=lambda pair: (-pair[1]["fpr"]["value"], -pair[1]["n"], pair[0])):
        title, short = _group(name, set(evaluation["sets"]))
        groups[title][short] = row
    return {title: group for title, group in groups.items() if group}


def _group(name: str, sets: set[str]) -> tuple[str, str]:
    """Title of a slice's group, and its name within it. A slice named like a set is that set."""
    bare = name.removesuffix(" (reply)")
    if bare in sets:
        return PUBLIC, name
    if bare != name:
        return (REFUSALS, bare.removeprefix("restricted:")) if bare.startswith("restricted:") else (REPLIES, bare)
    return (NEAR, name.removeprefix("permitted:")) if name.startswith("permitted:") else (ORDINARY, name)


def _largest(results: list[SetResult]) -> list[SetResult]:
    """Held-out sets first, then the largest; as many as there are panels, in the order of the results."""
    ranked = sorted(results, key=lambda s: (s.name not in HELD_OUT, -len(s.items)))[: figures.MAX_PANELS]
    return [s for s in results if s in ranked]
