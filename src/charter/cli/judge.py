"""charter judge: a language model as the classifier, by the constitution's own words; one JSON a line."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from charter.cli import engine, synthesize
from charter.cli.score import exchanges


class Escapes(StrEnum):
    """How text from outside is written for the judge."""

    tags = "tags"
    uppercase = "uppercase"


def command(
    file: synthesize.File,
    teacher: Annotated[str, typer.Option(help="The judge: the URL of an OpenAI-compatible endpoint, or embedded (far too weak to judge).")],
    teacher_model: synthesize.TeacherModel = None,
    rows: Annotated[
        Path | None, typer.Option("--file", help='JSONL of {"id", "messages": [{"role", "content"}]}; standard input if left out.')
    ] = None,
    clause: Annotated[str | None, typer.Option(help="Judge by this restricted clause and its counterpart alone.")] = None,
    reasons: Annotated[bool, typer.Option("--reasons", help="Let it argue before it decides: better and dearer.")] = False,
    escaping: Annotated[
        Escapes, typer.Option(help="tags: text can't hold a tag. uppercase: as in Wang et al. also capitals without spaces.")
    ] = Escapes.tags,
    max_cost: synthesize.MaxCost = None,
    price: synthesize.Price = (0.0, 0.0),
    concurrency: engine.Concurrency = engine.CONCURRENCY,
    seed: int = 0,
) -> None:
    """Let a language model judge exchanges by a constitution. What is no verdict counts as flagged. Answers are cached."""
    import anyio

    from charter.constitution import load
    from charter.evaluation.prompted import PromptedClassifier
    from charter.llm.opening import open_chat
    from charter.llm.pool import Budget

    constitution = load(file)
    faults = Counter[str]()

    async def work() -> None:
        async with open_chat(teacher, teacher_model, Budget(max_cost, *price), concurrency) as chat:
            classifier = PromptedClassifier(chat, constitution, clause, reasons, escaping.value, seed)
            async for found in classifier.judge_all(exchanges(rows), concurrency):
                v = found.verdict
                verdict = {"flagged": v.flagged, "score": v.score, "clause": v.clause, "position": v.position}
                typer.echo(json.dumps({"id": found.exchange.id, "verdict": verdict, "fault": found.fault}, ensure_ascii=False))
                faults.update([found.fault] if found.fault else [])

    anyio.run(work)
    if faults:
        said = ", ".join(f"{n:,} {fault}" for fault, n in faults.most_common())
        typer.echo(f"flagged for want of a verdict: {faults.total():,} ({said})", err=True)
