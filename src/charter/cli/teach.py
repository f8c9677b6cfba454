"""charter teach: a clause taught by its text, by labelled requests, and by both; when to stop writing and start labelling."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli import engine, synthesize, training

if TYPE_CHECKING:
    from charter.evaluation.teach import Curve
    from charter.statistics import Interval


def command(
    file: synthesize.File,
    clause: Annotated[str, typer.Option(help="The restricted clause that is taught.")],
    examples: Annotated[
        Path | None,
        typer.Option(
            help='JSONL of {"messages", "label": harmful, safe or benign}; a shipped constitution\'s recorded requests if left out.'
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="A language model that is told the rule: URL of an OpenAI-compatible endpoint, or embedded.")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option("--judge-model", "--model", help="Model name at that URL. Its key is read from CHARTER_JUDGE_KEY.")
    ] = None,
    limit: Annotated[int, typer.Option(min=20, help="Recorded requests of each side that are taken.")] = 150,
    draws: Annotated[int, typer.Option(min=2, max=100, help="Draws of what is labelled, over which is averaged.")] = 10,
    backbone: training.BackboneName = "embedded",
    max_cost: synthesize.MaxCost = None,
    price: synthesize.Price = (0.0, 0.0),
    concurrency: engine.Concurrency = engine.CONCURRENCY,
    seed: training.Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the curve as JSON.")] = False,
) -> None:
    """Teach one clause by text, by 1 to 50 labelled requests, and by both, and say when to stop writing rules and start labelling."""
    import anyio

    from charter.cli.progress import stages
    from charter.constitution import load
    from charter.evaluation import labelled, teach
    from charter.llm.opening import open_chat
    from charter.llm.pool import Budget

    constitution = load(file)
    own, counterpart = labelled.pair(constitution, clause)
    data = labelled.from_file(examples, own, counterpart) if examples else labelled.recorded(constitution, own, counterpart, limit)
    pool, test = labelled.halves(data, seed)

    done = 0
    with stages(quiet=as_json) as step:

        async def asked() -> Any:
            async with open_chat(judge or "", judge_model, Budget(max_cost, *price), concurrency, role="judge") as chat:
                return await teach.judged(chat, constitution, own, test, seed, concurrency, step)

        told = anyio.run(asked) if judge else None

        def progress(count: int) -> None:
            nonlocal done
            done += count
            step("reading", done, 0)

        found = teach.measure(pool, test, own, counterpart, backbone, told, seed, draws, progress=progress)
    about = {
        "constitution": constitution.name, "clause": own.id, "counterpart": counterpart.id if counterpart else None, "backbone": backbone,
        "judge": judge and (judge_model or judge), "pool": found.pool, "test": len(test.exchanges), "positives": int(test.restricted.sum()),
        "draws": draws, "seed": seed,
    }  # fmt: skip
    typer.echo(json.dumps(about | _figures(found)) if as_json else _table(about, found))


def _figures(found: Curve) -> dict[str, Any]:
    steps = [
        {
            "k": step.k, **{how: own.as_dict() for how, own in step.examples.items()}, "both": step.both.as_dict(),
            "ahead_of_text": step.ahead.as_dict(),
        }
        for step in found.steps
    ]  # fmt: skip
    text = {"rule": found.rule.as_dict(), "judge": found.judge and found.judge.as_dict(), "faults": found.faults}
    return {"text": text, "curve": steps, "advice": found.advice}


def _table(about: dict[str, Any], found: Curve) -> str:
    judge = (
        f"the judge {about['judge']} {_cell(found.judge)} ({found.faults} answers were no verdict)" if found.judge else "no judge (--judge)"
    )
    lines = [
        f"{about['clause']} against {about['counterpart'] or 'everything else'}: AUROC on {about['test']} requests ({about['positives']} restricted), "
        f"{about['pool']} others to label from; {about['draws']} draws, seed {about['seed']}, 95 % intervals",
        f"by text alone: the rule's own words {_cell(found.rule)}; {judge}",
        "",
        f"{'labels':>6} {'at random':>20} {'uncertain first':>20} {'farthest first':>20} {'text and random':>20}",
    ]
    for step in found.steps:
        cells = [*(step.examples[how] for how in ("random", "uncertain", "farthest")), step.both]
        lines.append(f"{step.k:>6} " + " ".join(f"{_cell(cell):>20}" for cell in cells))
    return "\n".join([*lines, "", found.advice])


def _cell(interval: Interval | None) -> str:
    if interval is None or interval.value is None:
        return "-"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
