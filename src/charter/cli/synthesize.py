"""charter synthesize: a constitution to labelled examples."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from charter.constitution import Constitution
    from charter.llm.pool import Budget
    from charter.synthesis.manifest import Manifest
    from charter.synthesis.teachers import Teacher

File = Annotated[str, typer.Argument(help="A constitution's YAML file, or the name of a shipped one (general, bank-assistant).")]
TeacherName = Annotated[
    str | None,
    typer.Option(help="recorded (the default for shipped constitutions), embedded, or the URL of an OpenAI-compatible endpoint."),
]
TeacherModel = Annotated[str | None, typer.Option(help="Model name at that endpoint. Its key is read from CHARTER_TEACHER_KEY.")]
PerClause = Annotated[
    int | None, typer.Option(min=1, help="Prompts for each clause; all recorded ones, or the teacher's own number, if left out.")
]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Stop cleanly before this cost; what was paid for stays cached.")]
Price = Annotated[tuple[float, float], typer.Option(help="Price of a million tokens read and written by the teacher.")]


def command(
    file: File,
    out: Annotated[Path, typer.Option(help="Folder for examples.parquet, manifest.json and the constitution.")],
    teacher: TeacherName = None,
    teacher_model: TeacherModel = None,
    per_clause: PerClause = None,
    max_cost: MaxCost = None,
    price: Price = (0.0, 0.0),
    seed: int = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Write labelled examples for every clause. Resumable: every answer of the teacher is cached."""
    run(file, out, teacher, teacher_model, per_clause, max_cost, price, seed, as_json)


def run(
    file: str, out: Path, teacher: str | None, model: str | None, per_clause: int | None, max_cost: float | None,
    price: tuple[float, float], seed: int, as_json: bool = False,
) -> None:  # fmt: skip
    """Synthesize, and say what came of each stage."""
    import anyio

    from charter.cli.progress import stages
    from charter.constitution import load
    from charter.records import write_text
    from charter.synthesis.build import Options, plan, synthesize

    constitution = load(file)
    for warning in constitution.warnings:
        typer.echo(f"warning: {warning}", err=True)
    options = Options(seed=seed, per_clause=per_clause, max_cost=max_cost, price_in=price[0], price_out=price[1])
    with (
        opened(teacher or _default(constitution), model, constitution, options.budget(), seed) as (writer, check),
        stages(quiet=as_json) as step,
    ):
        expected = plan(constitution, writer, options)
        if expected.calls:
            typer.echo(
                f"plan: at most {expected.calls:,} calls, {expected.tokens_in:,} tokens in and {expected.tokens_out:,} out, "
                f"cost {expected.cost:.2f}; cached answers are free",
                err=True,
            )

        async def work() -> Manifest:
            await check()
            return await synthesize(constitution, writer, options, out, step)

        manifest = anyio.run(work)
    write_text(out / "constitution.yaml", constitution.source)
    typer.echo((out / "manifest.json").read_text() if as_json else "\n".join(manifest.lines()))


@contextmanager
def opened(
    name: str, model: str | None, constitution: Constitution, budget: Budget, seed: int
) -> Iterator[tuple[Teacher, Callable[[], Awaitable[None]]]]:
    """The teacher of that name, its server running while the block runs, and a check that it answers."""
    from charter.synthesis.recorded import RecordedTeacher

    async def nothing() -> None:
        """A recorded teacher is always there."""

    if name == "recorded":
        yield RecordedTeacher(constitution), nothing
        return
    from charter.embedded import cache_folder
    from charter.llm.cache import Cache, CachedChat
    from charter.llm.client import OpenAIChat
    from charter.llm.embedded import embedded_server
    from charter.synthesis.language import LanguageTeacher

    with ExitStack() as stack:
        url = stack.enter_context(embedded_server()) if name == "embedded" else name
        chat = OpenAIChat(url, model or "embedded")
        cache = stack.enter_context(Cache(cache_folder() / "teacher.sqlite"))
        yield LanguageTeacher(CachedChat(chat, cache, budget), constitution, seed=seed), chat.check


def _default(constitution: Constitution) -> str:
    from charter.constitution import shipped
    from charter.errors import TeacherError

    if constitution.name in shipped():
        return "recorded"
    raise TeacherError(
        f"{constitution.name} has no recorded generations: pass --teacher embedded, or the URL of an OpenAI-compatible endpoint"
    )
