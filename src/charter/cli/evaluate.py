"""charter evaluate: what a guard catches, wrongly refuses and costs, in evaluation.json and report.html."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from charter.cli.point import Point
from charter.cli.training import Seed

Precision = Literal["float32", "bfloat16"]


def command(
    guard: Annotated[Path, typer.Argument(help="A guard's folder, or the name of a shipped guard: general.")],
    data: Annotated[
        Path | None, typer.Option(help="A folder of labelled *.jsonl(.gz) files, or one with examples.parquet: then its held-out split.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json and report.html; beside the guard if left out.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows of each set, drawn by the seed; all if left out.")] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens of all sets together: rows drawn by the seed, an equal share a set.",
        ),
    ] = None,
    seed: Seed = 0,
    against: Annotated[
        Path | None, typer.Option(help="Another guard to compare with on the same items: paired intervals and tests.")
    ] = None,
    against_upstream: Annotated[
        str,
        typer.Option(
            help="The guarded model that the cost is held against: its active weights (8e9), or a listed name such as llama-3.1-8b."
        ),
    ] = "embedded",
    upstream_rate: Annotated[float | None, typer.Option(min=1e-9, help="Tokens a second of that model, for its cost in seconds.")] = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Fit the screen again without each family: seconds a family; needs examples.parquet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json.")] = False,
    point: Point = "quiet",
    precision: Annotated[
        Precision, typer.Option(help="Of the weights that score the sets: bfloat16 takes half of the time and moves scores by about 0.01.")
    ] = "float32",
) -> None:
    """Measure a guard on labelled data. A killed run goes on where it stopped."""
    from charter.cli.progress import stages
    from charter.evaluation.datasets import from_examples, load_folder, sample, within
    from charter.evaluation.leave_one_out import leave_one_out as leave_family_out
    from charter.evaluation.precision import sixteen_bits
    from charter.evaluation.upstream import upstream
    from charter.evaluation.write import measure
    from charter.guard.folder import load
    from charter.guard.shipped import place
    from charter.records import read_examples, write_text
    from charter.report.markdown import report, with_measured
    from charter.report.page import render
    from charter.report.redteam import beside

    data, out = data or guard.parent, out or guard.parent
    model = upstream(against_upstream, upstream_rate)
    examples = list(read_examples(data)) if (data / "examples.parquet").is_file() or leave_one_out else None
    sets = load_folder(data) if examples is None else from_examples(examples)
    sets = sample(sets, limit, seed) if limit else sets
    loaded = load(guard, point=point)
    versus = load(against, point=point) if against else None
    reader = None
    if precision == "bfloat16":
        reader, versus = sixteen_bits(load(guard, point=point)), versus and sixteen_bits(versus)
    sets = within(sets, max_tokens, loaded.cascade.length, seed) if max_tokens else sets
    more = {"leave_one_family_out": leave_family_out(examples, loaded.budgets[0])} if examples and leave_one_out else None
    total, done = sum(len(s.items) for s in sets) * (2 if versus else 1), 0
    with stages(quiet=as_json) as step:

        def progress(count: int) -> None:
            nonlocal done
            done += count
            step("evaluate", done, total)

        evaluation, results = measure(
            loaded,
            sets,
            out,
            seed=seed,
            command=shlex.join(["charter", *sys.argv[1:]]),
            grade=_grade,
            upstream=model,
            versus=versus,
            reader=reader,
            more=more,
            progress=progress,
        )
        step("report", 0, 1)
        render(evaluation, results, loaded, out / "report.html")
        write_text(out / "report.md", report(evaluation, beside(out, loaded.hash)))
        folder = place(guard)
        write_text(out / "model-card.md", with_measured((folder / "card.md").read_text(encoding="utf-8"), evaluation))
        step("report", 1, 1)
    typer.echo((out / "evaluation.json").read_text() if as_json else _table(evaluation))
    typer.echo(f"report: {out / 'report.html'}", err=True)


def _grade(prompt: str, reply: str) -> str:
    """What a truncated reply does, by the shipped classifier of replies."""
    from charter.refusals.classify import load

    return load().judge(reply, prompt).did


def _table(evaluation: dict[str, dict[str, dict[str, dict[str, float | None]]]]) -> str:
    """The sets, a line each."""
    lines = [f"{'set':24} {'n':>6} {'AUROC':>22} {'recall':>22} {'false positives':>22}"]
    for name, figures in evaluation["sets"].items():
        cells = " ".join(f"{_cell(figures[key]):>22}" for key in ("auroc", "recall", "fpr"))
        lines.append(f"{name:24} {figures['n']:>6} {cells}")
    return "\n".join(lines)


def _cell(interval: dict[str, float | None]) -> str:
    value, low, high = interval["value"], interval["low"], interval["high"]
    return "-" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
