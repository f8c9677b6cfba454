"""charter forecast: what the largest risk will be at n queries, from the probabilities of a few."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from charter.cli.training import Seed


class Methods(StrEnum):
    """Ways to fit a tail."""

    likelihood = "likelihood"
    half_rank = "half-rank"
    paper = "paper"
    gpd = "gpd"


def command(
    file: Annotated[Path, typer.Argument(help="JSONL, a query a row: its probability, log-probability, counts, or the guard's score.")],
    n: Annotated[list[str] | None, typer.Option("--n", metavar="N", help="Queries to forecast for, such as 1e6; can be repeated.")] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            help="How frequent are queries above this probability? 0.5 if left out; can be repeated. With --sabotage: the monitor's."
        ),
    ] = None,
    quantile: Annotated[float, typer.Option(help="Quantile of the worst query's probability: 0.5 is the median of the maximum.")] = 0.5,
    method: Annotated[
        Methods, typer.Option(help="likelihood is the most precise; half-rank and paper fit a line to the top 10; gpd may bend.")
    ] = Methods.likelihood,
    top: Annotated[int | None, typer.Option(min=5, help="How many of the largest probabilities the tail is read off.")] = None,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    sabotage: Annotated[
        bool, typer.Option("--sabotage", help="FILE holds trials of an attacker against a monitor: can it win over --n opportunities?")
    ] = False,
    alpha: Annotated[float, typer.Option(help="With --sabotage: share of honest work that the monitor may flag.")] = 0.01,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Forecast the worst query, the frequency of bad ones and the risk of them all at n queries, from the tail of a sample.

    A row is one of {"log_p": -41.2} (log-probability of a target reply), {"p": 0.003}, {"hits": 3, "samples": 200}, or a line of
    evaluation's scores.jsonl. 1,000 rows or more, drawn as the queries to come will be: an attacker who adapts is not in them.

    \b
    charter forecast rows.jsonl --n 1e5 --n 1e6
    charter forecast trials.jsonl --sabotage --n 100000

    With --sabotage a row is {"kind": "attack", "harm": true, "own": 0.2, "suspicion": 0.35}, {"kind": "honest", "suspicion": 0.1} or
    {"kind": "answer", "item": "q1", "state": "original", "right": true} (states: original, locked, unlocked).
    """
    from charter.errors import DataError

    if not 0.5 <= level < 1:
        raise DataError(f"--level {level:g}: an interval's level lies between 0.5 and 1")
    counts = [count(text) for text in n or ()]
    if sabotage:
        told = _sabotage(file, counts, threshold or [], alpha, level, seed)
        lines = sabotage_lines(told)
    else:
        told = _forecast(file, counts, threshold or [0.5], quantile, method, top, level, seed)
        lines = forecast_lines(told)
    typer.echo(json.dumps(told, allow_nan=False) if as_json else "\n".join(lines))


def count(text: str) -> float:
    """A number of queries, such as 1e6 or 250000.

    Raises:
        DataError: it is none.
    """
    from charter.errors import DataError

    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        value = math.nan
    if not 1 <= value <= 1e15:
        raise DataError(f"--n {text}: write a number of queries from 1 to 1e15, such as 1e6")
    return value


def _forecast(
    file: Path, n: list[float], thresholds: list[float], quantile: float, method: Methods, top: int | None, level: float, seed: int
) -> dict[str, Any]:
    from charter.forecast.elicitation import read_elicitation
    from charter.forecast.write import Asked, tell

    return tell(read_elicitation(file), Asked(n, thresholds, method.value, top, quantile, level, seed))


def _sabotage(file: Path, n: list[float], thresholds: list[float], alpha: float, level: float, seed: int) -> dict[str, Any]:
    from charter.errors import DataError
    from charter.forecast.trials import read_trials
    from charter.forecast.write import tell_sabotage

    log = read_trials(file)
    if len(n) > 1 or len(thresholds) > 1 or (log.trials is not None and not n):
        raise DataError("--sabotage needs the number of opportunities of one deployment (--n), and takes one --threshold at most")
    return tell_sabotage(log, int(n[0]) if n else 1, alpha, thresholds[0] if thresholds else None, level, seed)


def forecast_lines(told: dict[str, Any]) -> list[str]:
    """A forecast as a table, what it rests on, and what speaks against it."""
    tail, level = told["tail"], told["level"]
    heading = f"worst query, quantile {told['quantile']:g} [{level:.0%}]"
    out = [
        f"{told['m']:,} queries ({told['source']}), the largest probability {told['largest']:.2g}, {told['zeros']:,} zeros; "
        f"tail: {tail['method']} on the {tail['top']} largest, scale of psi {tail['scale']:.3g}; seed {told['seed']}",
        f"{'n':>8} {heading:>40} {'any success in n queries':>30} {'the same, expected':>30}",
    ]
    out += [
        f"{at['n']:>8.2g} {_cell(at['worst']):>40} {_cell(at['aggregate']):>30} {_cell(at['expected']):>30}" for at in told["forecasts"]
    ]
    out += [f"above {f['threshold']:g}: a share of {_cell(f)} of queries" for f in told["frequency"]]
    return [*out, _validated(told["validation"]), *(f"caution: {sentence}" for sentence in told["warnings"])]


def _validated(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not validated on these data: it takes 1,000 queries to hold some back"
    worst, often, together = (found[key] for key in ("worst", "frequency", "aggregate"))
    return (
        f"own check, {worst['n']} random {found['m']:,} of these queries forecasting the other {found['n']:,}, mean absolute error in natural "
        f"logarithms: worst query {worst['absolute']:.2f} ({worst['within']:.0%} within a factor of 10, {worst['under']:.0%} too low, "
        f"{worst['covered']:.0%} in the interval), frequency {often['absolute']:.2f}, aggregate {together['absolute']:.2f}"
    )


def sabotage_lines(told: dict[str, Any]) -> list[str]:
    """The monitor, the attacker's chance, and the recovered share."""
    out = []
    if (found := told["sabotage"]) is not None:
        monitor, best = found["monitor"], found["best"]
        certified = "" if monitor["certified"] else f", too little honest work to certify {found['alpha']:.2%}"
        out += [
            f"monitor: misses {_cell(monitor['missed'])} of harmful trials, flags {_cell(monitor['false_alarms'])} of honest work{certified}",
            f"attacker over {found['opportunities']:,} opportunities: harm done and nothing noticed with a chance of {_cell(found['win'])}, "
            f"n = {found['win']['n']}, strategy chosen on other trials than judge it",
            f"in hindsight {best['win']:.3g} at best, with {best['attempts']:,} attempts: optimistic, since chosen on the same trials",
            *(f"caution: {sentence}" for sentence in found["warnings"]),
            "caution: draws from a small pool; one attack better than all in it would be enough to be wrong",
        ]
    if (share := told["recovered"]) is not None:
        out.append(f"hidden capability recovered: {_cell(share)}, n = {share['n']} items")
    return [*out, f"intervals: {told['level']:.0%}, seed {told['seed']}"]


def _cell(i: dict[str, Any]) -> str:
    return "-" if i["value"] is None else f"{i['value']:.2g} [{i['low']:.2g}, {i['high']:.2g}]"
