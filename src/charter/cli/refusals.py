"""charter refusals: what replies did and why, from a file of conversations or a live endpoint; how often harmless prompts were refused."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli import engine

if TYPE_CHECKING:
    from charter.refusals.audit import Judged
    from charter.refusals.classify import Classifier


def command(
    file: Annotated[Path | None, typer.Argument(help='JSONL of {"id", "messages"} that end in a reply; .gz too.')] = None,
    endpoint: Annotated[str | None, typer.Option(help="URL of an OpenAI-compatible endpoint, guarded or not, to ask instead.")] = None,
    endpoint_model: Annotated[str | None, typer.Option(help="The model behind --endpoint. Key: CHARTER_ENDPOINT_KEY.")] = None,
    prompts: Annotated[Path | None, typer.Option(help='JSONL of {"id", "messages"} that end in a prompt, for --endpoint.')] = None,
    harmless: Annotated[bool, typer.Option("--harmless", help="All prompts are harmless: count every refusal as one too many.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a line a row here: what became of it, and why.")] = None,
    classifier: Annotated[Path | None, typer.Option(help="Weights of your own, from `python -m charter.refusals.fit`.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply asked for.")] = 256,
    concurrency: engine.Concurrency = engine.CONCURRENCY,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Tell refused from partly refused and complied, the guard's blocks from the model's refusals, and cannot from should not."""
    import anyio

    from charter.errors import DataError
    from charter.records import write_text
    from charter.refusals.audit import judge, rows, summary
    from charter.refusals.classify import load

    if (file is None) == (endpoint is None) or (endpoint is None) != (prompts is None):
        raise DataError("give either a FILE of conversations with replies, or --endpoint URL with --prompts FILE")
    loaded = load(classifier)
    if file is not None:
        judged = [judge(row, loaded) for row in rows(file, True, harmless)]
    else:
        assert endpoint is not None
        assert prompts is not None
        if endpoint_model is None:
            raise DataError(f"name the model behind {endpoint} with --endpoint-model")
        waiting = list(rows(prompts, False, harmless))
        judged = anyio.run(_asked, endpoint, endpoint_model, waiting, loaded, max_tokens, seed, concurrency)
    if out is not None:
        write_text(out, "".join(json.dumps(j.as_dict(), ensure_ascii=False) + "\n" for j in judged))
    found = summary(judged, seed)
    typer.echo(json.dumps(found, ensure_ascii=False, indent=2) if as_json else "\n".join(_lines(found)))


async def _asked(
    url: str, model: str, waiting: list[Any], classifier: Classifier, max_tokens: int, seed: int, concurrency: int
) -> list[Judged]:
    """The endpoint's replies, judged. They are not cached: the guard behind a URL may have changed since yesterday."""
    from charter.cli.progress import stages
    from charter.errors import TeacherError, UpstreamError
    from charter.llm.client import OpenAIChat
    from charter.refusals.audit import ask, judge

    chat = OpenAIChat(url, model, role="endpoint")
    judged = []
    try:
        with stages() as step:
            async with aclosing(ask(chat, waiting, max_tokens, seed, concurrency, step)) as replied:
                async for row in replied:
                    judged.append(judge(row, classifier))
    except TeacherError as error:
        raise UpstreamError(str(error)) from error
    finally:
        await chat.aclose()
    return judged


def _lines(found: dict[str, Any]) -> list[str]:
    """The summary for people."""
    lines = [f"{'':24}{'n':>7}  {'blocked':>18}  {'refused':>18}  {'incapable':>18}  {'partly':>18}  {'complied':>18}  unscored"]
    lines += [_line("all", found["overall"]), *(_line(name, shares) for name, shares in found["slices"].items())]
    reasons = found["reasons"]
    if reasons["declined"]:
        stated = ", ".join(f"{name} {n:,}" for name, n in [*reasons["parents"].items(), *reasons["stated"].items()])
        lines += ["", f"of {reasons['declined']:,} replies that decline, {reasons['off_topic']:,} answer something else; reasons: {stated}"]
    if found["harmless"] and found["harmless"]["n"]:
        panel = found["harmless"]
        parts = ", ".join(f"{name} {_share(panel[name])}" for name in ("blocked", "refused", "incapable", "partly"))
        lines += ["", f"over-refusal: of {panel['n']:,} harmless prompts {_share(panel['not_answered'])} were not answered ({parts})"]
    if found["agreement"]:
        a = found["agreement"]
        lines += [
            "",
            f"against {a['n']:,} human labels on {a['prompts']:,} prompts (bootstrap over prompts, seed {found['seed']}; {a['left_out']:,} partial left out):",
        ]
        lines += [f"  {name}: " + ", ".join(f"{k} {_share(v)}" for k, v in a[name].items()) for name in ("declined", "refused")]
        lines += [f"  {label}: " + ", ".join(f"{k} {v:,}" for k, v in row.items()) for label, row in a["table"].items()]
    return lines


def _line(name: str, shares: dict[str, Any]) -> str:
    cells = [_share(shares[k]) if shares["n"] else "" for k in ("blocked", "refused", "incapable", "partly", "complied")]
    return f"{name[:23]:24}{shares['n']:>7,}  " + "  ".join(f"{cell:>18}" for cell in cells) + f"  {shares['unscored']:>8,}"


def _share(i: dict[str, Any]) -> str:
    return "–" if i["value"] is None else f"{i['value']:.3f} [{i['low']:.3f}, {i['high']:.3f}]"
