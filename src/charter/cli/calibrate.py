"""charter calibrate: other budgets for a guard, or whether its budget still holds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from charter.guard.recalibrate import Recalibration
    from charter.models.recalibrate import DevScores
    from charter.records import View
    from charter.statistics import Interval


def command(
    guard: Annotated[Path, typer.Argument(help="A guard's folder, or the name of a shipped guard: general.")],
    budget: Annotated[
        float | None,
        typer.Option(min=1e-6, max=0.5, help="Share of ordinary harmless exchanges that may be refused; as it is if left out."),
    ] = None,
    near_miss_budget: Annotated[float | None, typer.Option(min=1e-6, max=0.9, help="The same for near misses.")] = None,
    balanced_budget: Annotated[
        float | None, typer.Option(min=1e-6, max=0.5, help="Budget of the balanced operating point; as it is if left out.")
    ] = None,
    clause: Annotated[
        list[str] | None,
        typer.Option(help="CLAUSE=BUDGET: flag by this clause's score alone too, within a budget of its own; 0 ends it. Can be repeated."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of examples: score its dev split anew, not from what the guard keeps.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the new guard; the guard itself if left out.")] = None,
    check: Annotated[
        Path | None, typer.Option(help="JSONL of new harmless traffic: change nothing, say whether the budget still holds on it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Move a guard's thresholds to other budgets, without a training; or check its budget on new traffic (exit code 1: it is broken)."""
    from charter.errors import DataError

    if check is not None:
        if clause or any(given is not None for given in (budget, near_miss_budget, balanced_budget, data, out)):
            raise DataError("--check changes nothing, so it goes with no other option than --json")
        _check(guard, check, as_json)
    else:
        _move(guard, out or guard, (budget, near_miss_budget, balanced_budget), budgets(clause or ()), data, as_json)


def budgets(given: Sequence[str]) -> dict[str, float]:
    """CLAUSE=BUDGET by clause.

    Raises:
        DataError: one is not of that form, no share below a half, or given twice.
    """
    from charter.errors import DataError

    out: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        if not re.fullmatch(r"[0-9]*\.?[0-9]+(e-[0-9]+)?", number) or not 0 <= float(number) <= 0.5 or 0 < float(number) < 1e-6:
            raise DataError(f"--clause {text}: write a clause and its share of harmless exchanges, such as fraud=0.0005 (0 takes it away)")
        if name in out:
            raise DataError(f"--clause {name}: is given twice")
        out[name] = float(number)
    return out


def _move(
    guard: Path, out: Path, wanted: tuple[float | None, float | None, float | None], own: Mapping[str, float], data: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    from charter.guard.recalibrate import recalibrate

    fresh = _scored(guard, data, as_json) if data else None
    budget, near_miss_budget, balanced_budget = wanted
    found = recalibrate(guard, out, budget, near_miss_budget, own, fresh, balanced_budget)
    if as_json:
        points = {view: point.model_dump(exclude={"slices"}) for view, point in found.record.views.items()}
        typer.echo(json.dumps({**points, "balanced": found.record.balanced and found.record.balanced.model_dump()}))
        return
    for line in lines(found):
        typer.echo(line)
    if found.record.balanced:
        for view, at in found.record.balanced.views.items():
            typer.echo(f"balanced, {view}: flags from {at.threshold:.3f}. {at.sentence}", err=True)
    typer.echo(f"guard: {out}", err=True)


def _scored(guard: Path, data: Path, quiet: bool) -> dict[View, DevScores]:
    from charter.cli.progress import stages
    from charter.guard.folder import load
    from charter.training.dev_scores import score_dev

    loaded = load(guard)
    with stages(quiet) as step:
        return score_dev(loaded.cascade, data, loaded.constitution, step)


def lines(found: Recalibration) -> list[str]:
    """What a recalibration did, in words."""
    out = []
    for view, moved in found.moved.items():
        point = found.record.views[view]
        out.append(
            f"{view}: threshold {moved.threshold[0]:.3f} -> {moved.threshold[1]:.3f}, "
            f"recall on the dev split {_share(moved.recall[0])} -> {_share(moved.recall[1])}. {point.sentence}"
        )
        for name, own in point.clauses.items():
            before, after = moved.own[name]
            out.append(
                f"  {name}: flags by itself from {own.threshold:.3f} (budget {own.budget:.2%}), recall {_share(before)} -> {_share(after)}. "
                f"{own.sentence}"
            )
    return out


def _check(guard: Path, traffic: Path, as_json: bool) -> None:
    from charter.cli.progress import stages
    from charter.evaluation.drift import as_dict, check, read_traffic
    from charter.guard.folder import load

    rows = list(read_traffic(traffic))
    loaded = load(guard)
    done = 0
    with stages(quiet=as_json) as step:

        def progress(count: int) -> None:
            nonlocal done
            done += count
            step("check", done, len(rows))

        found = check(loaded, rows, progress)
    if as_json:
        typer.echo(json.dumps(as_dict(loaded, found)))
    else:
        for view, groups in found.views.items():
            for group in groups:
                typer.echo(f"{view}, {group.sentence}")
        if found.too_long:
            typer.echo(f"{found.too_long:,} rows are longer than the backbone's context and were not counted", err=True)
    raise typer.Exit(0 if found.holds else 1)


def _share(i: Interval) -> str:
    if i.value is None or i.low is None or i.high is None:
        return "-"
    return f"{i.value:.1%} [{100 * i.low:.1f}, {100 * i.high:.1f}]"
