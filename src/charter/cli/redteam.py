"""charter redteam: attacks a guard in front of an endpoint, or an endpoint as it stands, judges the outcomes and reports them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli import engine, synthesize
from charter.cli.point import Point
from charter.cli.training import Seed

if TYPE_CHECKING:
    from charter.guard.folder import Guard
    from charter.redteam.questions import Question
    from charter.redteam.strategies import Named

NO_GUARD = "-"


def command(
    guard: Annotated[str, typer.Argument(help="A guard's folder or name, put in front of --upstream; - attacks --upstream as it stands.")],
    upstream: Annotated[
        str, typer.Option(help="URL of an OpenAI-compatible endpoint (its /v1), or `embedded`. Key: CHARTER_UPSTREAM_KEY.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of attempts.jsonl, redteam.json, redteam.md and redteam.html; a killed run goes on in it.")
    ],
    upstream_model: Annotated[str | None, typer.Option(help="The model behind --upstream.")] = None,
    unguarded: Annotated[
        str | None,
        typer.Option(help="Without GUARD: the same model unguarded, whose answers show what a full one holds. URL or `embedded`."),
    ] = None,
    unguarded_model: Annotated[str | None, typer.Option(help="The model behind --unguarded. Key: CHARTER_UNGUARDED_KEY.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help='JSONL of {"prompt"} or {"messages"}; the restricted clauses\' own examples if left out.')
    ] = None,
    constitution: Annotated[str | None, typer.Option(help="Whose examples are asked for; the guard's own if left out.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Questions, spread over the clauses.")] = 24,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="plain, families, family:NAME, stacks, injection, compose, suffix ...; repeat. All if left out."),
    ] = None,
    suite: Annotated[list[Path] | None, typer.Option(help="JSONL of templates with a {prompt} slot, or of whole prompts; repeat.")] = None,
    attacker: Annotated[str | None, typer.Option(help="URL of the model that attacks, or `embedded`. Key: CHARTER_ATTACKER_KEY.")] = None,
    attacker_model: Annotated[str | None, typer.Option(help="The model behind --attacker.")] = None,
    judge: Annotated[str | None, typer.Option(help="URL of the model that grades by rubric; overlap of words if left out.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="The model behind --judge. Key: CHARTER_JUDGE_KEY.")] = None,
    labels: Annotated[Path | None, typer.Option(help='JSONL of {"n", "success"}: people\'s word on attempts, to correct by.')] = None,
    budget: Annotated[int, typer.Option(min=1, help="Queries to the target.")] = 1_000,
    tries: Annotated[int, typer.Option(min=1, help="Queries of one strategy for one question.")] = 4,
    references: Annotated[int, typer.Option(min=0, help="Unguarded answers to each question; not in the budget.")] = 2,
    scored: Annotated[int, typer.Option(min=1, help="Prompts that one search may have the guard score.")] = 80,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply asked for.")] = 256,
    max_cost: synthesize.MaxCost = None,
    price: synthesize.Price = (0.0, 0.0),
    concurrency: engine.Concurrency = 4,
    point: Point = "quiet",
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print redteam.json.")] = False,
) -> None:
    """Red-team a guard or an endpoint with a fixed number of queries. Run the same command again to go on where it stopped."""
    import anyio

    from charter.cli.progress import stages
    from charter.llm.pool import Budget
    from charter.redteam.campaign import Options
    from charter.redteam.opening import Model
    from charter.redteam.write import Wishes, redteam

    loaded = _guard(guard, point)
    asked = _questions(questions, constitution, loaded, limit, seed)
    chosen = _strategies(strategy, suite, attacker is not None, loaded is not None)

    def model(url: str | None, name: str | None) -> Model | None:
        return Model(url, name) if url is not None else None

    wishes = Wishes(
        Model(upstream, upstream_model), model(unguarded, unguarded_model), model(attacker, attacker_model), model(judge, judge_model), labels,
        Budget(max_cost, *price),
    )  # fmt: skip
    options = Options(budget, tries, seed, max_tokens, references, scored, concurrency)
    with stages() as step:
        told = anyio.run(redteam, loaded, wishes, asked, chosen, out, options, step)
    _page(told, out)
    typer.echo(json.dumps(told, ensure_ascii=False) if as_json else "\n".join(_lines(told, out)))


def _guard(name: str, point: Any) -> Guard | None:
    if name == NO_GUARD:
        return None
    from charter.guard.folder import load

    return load(Path(name), point=point)


def _questions(file: Path | None, constitution: str | None, guard: Guard | None, limit: int, seed: int) -> list[Question]:
    from charter.constitution import load
    from charter.errors import DataError
    from charter.redteam.questions import of_constitution, of_file

    if file is not None:
        return of_file(file, limit)
    if constitution is None and guard is None:
        raise DataError("say what to ask for: --questions FILE, or --constitution NAME for the examples of its restricted clauses")
    rules = load(constitution) if constitution is not None else guard.constitution if guard is not None else None
    assert rules is not None
    return of_constitution(rules, limit, seed)


def _strategies(names: list[str] | None, suites: list[Path] | None, attacker: bool, score: bool) -> list[Named]:
    """Those named and those of the suites; a suite alone names no others."""
    from charter.redteam.strategies import chosen
    from charter.redteam.suites import all_of

    own = all_of(suites or [])
    return (chosen(names or [], attacker, score) if names or not own else []) + own


def _page(told: dict[str, Any], out: Path) -> None:
    from charter.errors import MissingExtra
    from charter.report.redteam import render

    try:
        render(told, out / "redteam.html")
    except MissingExtra as error:
        typer.echo(f"no redteam.html: {error}", err=True)


def _lines(told: dict[str, Any], out: Path) -> list[str]:
    """The report in short."""
    from charter.redteam.markdown import rate

    used, overall, found = told["queries"], told["overall"], told["universal"]
    lines = [
        f"{told['target']['name']}: {used['used']:,} of {used['budget']:,} queries, {told['questions']['attacked']:,} questions, seed {told['seed']}",
        f"succeeded {rate(overall['success'])}; complied {rate(overall['complied'])}; of the replies that came "
        f"{rate(overall['replies_complied'])}, corrected for the judge's error {rate(overall['replies_complied_corrected'])}",
        ", ".join(f"{name} {count:,}" for name, count in overall["outcomes"].items()),
    ]
    if found:
        won = {name: row for name, row in found["strategies"].items() if row["cleared"]}
        lines += [f"  {name}: clears {r['cleared']} of {r['tried']} [{r['low']:.1f}, {r['high']:.1f}]" for name, r in won.items()]
        lines.append(found["ranking"])
    return [
        *lines,
        *(f"caution: {sentence}" for sentence in told["cautions"]),
        f"report: {out}/redteam.html, redteam.md, redteam.json, attempts.jsonl",
    ]
