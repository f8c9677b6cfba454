"""charter synthesize: a constitution to labelled examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli import engine, families
from charter.cli.training import Seed

if TYPE_CHECKING:
    from charter.constitution import Constitution
    from charter.llm.cache import Usage
    from charter.synthesis.build import Plan
    from charter.synthesis.manifest import Manifest

File = Annotated[
    str, typer.Argument(help="A constitution's YAML file, or the name of a shipped one (general, bank-assistant, chemical-weapons).")
]
TeacherName = Annotated[
    str | None,
    typer.Option(help="recorded (the default for shipped constitutions), embedded, or the URL of an OpenAI-compatible endpoint."),
]
TeacherModel = Annotated[str | None, typer.Option(help="Model name at that endpoint. Its key is read from CHARTER_TEACHER_KEY.")]
PerClause = Annotated[
    int | None,
    typer.Option(min=1, help="Prompts for each clause; all recorded ones, or the teacher's own number, if left out."),
]
PerPool = Annotated[int | None, typer.Option(min=1, help="Rows of each pool of ordinary traffic, spread over it; all of them if left out.")]
LongReplies = Annotated[
    bool,
    typer.Option(
        "--long-replies/--short-replies", help="Short: leave out recorded replies at length, which is quicker and teaches less of replies."
    ),
]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Stop cleanly before this cost; what was paid for stays cached.")]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(help="Folder of *.jsonl(.gz), such as benchmarks, whose texts must never be trained on. Can be repeated."),
]
Audited = Annotated[
    list[Path] | None,
    typer.Option(help="JSONL that `charter audit --export` wrote: what people decided there becomes training data. Can be repeated."),
]
Price = Annotated[tuple[float, float], typer.Option(help="Price of a million tokens read and written by the teacher.")]

FLAGS = {
    "seed": "--seed", "per_clause": "--per-clause", "per_pool": "--per-pool", "max_cost": "--max-cost", "price_in": "--price",
    "price_out": "--price", "augment_rate": "--augment", "limit": "--concurrency",
}  # fmt: skip
"""The options of synthesis by name, and what sets them here."""


def command(
    file: File,
    out: Annotated[Path, typer.Option(help="Folder for examples.parquet, manifest.json and the constitution.")],
    teacher: TeacherName = None,
    teacher_model: TeacherModel = None,
    per_clause: PerClause = None,
    per_pool: PerPool = None,
    long_replies: LongReplies = True,
    max_cost: MaxCost = None,
    price: Price = (0.0, 0.0),
    family: families.FamilyNames = None,
    held_out: families.HeldOut = None,
    augment: families.Augment = None,
    exclude: Exclude = None,
    audited: Audited = None,
    concurrency: engine.Concurrency = engine.CONCURRENCY,
    engine_: engine.EngineName = engine.Place.local,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Write labelled examples for every clause. Resumable: every answer of the teacher is cached."""
    more = {**families.chosen(family, held_out, augment), "limit": concurrency, "per_pool": per_pool, "long_replies": long_replies}
    run(file, out, teacher, teacher_model, per_clause, max_cost, price, seed, as_json, more, exclude or (), engine_, audited or ())


def run(
    file: str, out: Path, teacher: str | None, model: str | None, per_clause: int | None, max_cost: float | None,
    price: tuple[float, float], seed: int, as_json: bool = False, more: Mapping[str, Any] | None = None, exclude: Sequence[Path] = (),
    place: engine.Place = engine.Place.local, audited: Sequence[Path] = (),
) -> None:  # fmt: skip
    """Synthesize, and say what came of each stage. `more` are further options of synthesis by name; `exclude` names folders."""
    import os
    from functools import partial

    import anyio

    from charter.cli.progress import stages
    from charter.constitution import load
    from charter.errors import DataError
    from charter.synthesis.build import Options, plan, synthesize
    from charter.synthesis.exclude import Excluded
    from charter.synthesis.opening import open_teacher

    constitution = load(file)
    excluded = Excluded.read(exclude) if exclude else None
    for warning in constitution.warnings:
        typer.echo(f"warning: {warning}", err=True)
    told = {"seed": seed, "per_clause": per_clause, "max_cost": max_cost, "price_in": price[0], "price_out": price[1], **(more or {})}
    try:
        options = Options(**told)
    except DataError as error:
        raise DataError(_by_flag(str(error))) from error
    opening = partial(open_teacher, teacher or _default(constitution), constitution, seed=seed, model=model)
    elsewhere = partial(opening, api_key=os.environ.get("CHARTER_TEACHER_KEY"), check=False)  # a worker has another environment
    with engine.chosen(place, elsewhere, options.budget(), options.limit) as workers, stages(quiet=as_json) as step:

        async def work() -> tuple[Manifest, Usage]:
            async with opening(budget=options.budget(), limit=options.limit) as writer:
                _tell(plan(constitution, writer, options))
                manifest = await synthesize(constitution, writer, options, out, step, workers, excluded, audited)
                return manifest, (workers or writer).usage

        manifest, usage = anyio.run(work)
    typer.echo((out / "manifest.json").read_text() if as_json else "\n".join(manifest.lines()))
    if manifest.warning:
        typer.echo(f"warning: {manifest.warning}", err=True)
    if usage.made or usage.cached or usage.failed:
        typer.echo(
            f"teacher: {usage.made:,} calls made, {usage.cached:,} cached, {usage.retried:,} retried, {usage.failed:,} failed", err=True
        )


def _by_flag(sentence: str) -> str:
    """The sentence about an option with the flag that sets it, in place of its name."""
    name, _, rest = sentence.partition(" ")
    return f"{FLAGS[name]} {rest}" if name in FLAGS else sentence


def _tell(expected: Plan) -> None:
    """What the run will take at most."""
    if expected.calls:
        typer.echo(
            f"plan: at most {expected.calls:,} calls, {expected.tokens_in:,} tokens in and {expected.tokens_out:,} out, "
            f"cost {expected.cost:.2f}; cached answers are free",
            err=True,
        )


def _default(constitution: Constitution) -> str:
    from charter.constitution import shipped
    from charter.errors import TeacherError

    if constitution.name in shipped():
        return "recorded"
    raise TeacherError(
        f"{constitution.name} has no recorded generations: pass --teacher embedded, or the URL of an OpenAI-compatible endpoint"
    )
