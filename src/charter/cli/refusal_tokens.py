"""charter refusal-tokens: train an upstream whose first token says whether it refuses, and see what each threshold does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def command(
    folder: Annotated[Path, typer.Argument(help="Folder of the refusal tokens: written by --train, read by --sweep and --ask.")],
    train: Annotated[Path | None, typer.Option(help="Train on this folder of `charter synthesize` (or its examples.parquet).")] = None,
    sweep: Annotated[Path | None, typer.Option(help="Try all thresholds on the prompts of this folder; also writes sweep.json.")] = None,
    ask: Annotated[str | None, typer.Option(help="Answer this prompt.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="For --ask: refuse from this probability on; the model's choice if left out.")
    ] = None,
    shift: Annotated[float, typer.Option(help="Add this to the logits of all refusal tokens.")] = 0.0,
    backbone: Annotated[str, typer.Option(help="For --train: embedded, a folder, or a hub id.")] = "embedded",
    per_clause: Annotated[bool, typer.Option("--per-clause", help="For --train: a refusal token for each restricted clause.")] = False,
    rows: Annotated[int | None, typer.Option(min=2, help="For --train: most rows, half of them refusals.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    blocks: Annotated[int, typer.Option(min=0, help="For --train: blocks that get adapters, the last ones; 0 for all.")] = 8,
    thresholds: Annotated[str | None, typer.Option(help="For --sweep: numbers with commas between them.")] = None,
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="For --sweep; choose a threshold on dev.")] = "test",
    prompts: Annotated[int | None, typer.Option(min=1, help="For --sweep: most prompts a side.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply drawn.")] = 48,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Train [refuse] and [respond] tokens, sweep their thresholds, or answer a prompt at one."""
    from charter.errors import DataError

    if train is None and sweep is None and ask is None:
        raise DataError("say what to do: --train DATA, --sweep DATA, or --ask PROMPT")
    from charter.cli.progress import stages
    from charter.records import read_examples, write_text
    from charter.refusals import tokens
    from charter.refusals.tune import Options
    from charter.refusals.tune import train as fit

    levels = tokens.THRESHOLDS if thresholds is None else tokens.parse_thresholds(thresholds)
    if train is not None:
        marks, drawn = tokens.training_rows(read_examples(train), per_clause, rows, seed)
        with stages() as step:
            trained = fit(drawn, marks, Options(backbone=backbone, epochs=epochs, blocks=blocks, seed=seed), step)
        trained.save(folder)
        counts = ", ".join(f"{name} {n:,}" for name, n in trained.record.rows.items())
        typer.echo(f"{folder}: trained in {trained.record.steps:,} steps, seed {seed}; rows: {counts}", err=True)
    if sweep is None and ask is None:
        return
    from charter.models.marked import Marked
    from charter.models.refusal_tokens import RefusalTokens, Rule

    rules = [Rule(theta, shift=shift) for theta in (threshold, *levels)]  # a threshold that is none is told before the work
    model = Marked(RefusalTokens.load(folder))
    if sweep is not None:
        asked = tokens.prompts(read_examples(sweep), split, prompts, seed)
        found = _swept(model, asked, levels, shift, max_tokens, seed) | {"split": split, "max_tokens": max_tokens}
        write_text(folder / "sweep.json", json.dumps(found, indent=1) + "\n")
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found)))
    if ask is not None:
        typer.echo(_answer(model, ask, rules[0], max_tokens, seed, as_json))


def _swept(model: Any, asked: Any, levels: tuple[float, ...], shift: float, max_tokens: int, seed: int) -> dict[str, Any]:
    from charter.cli.progress import stages
    from charter.refusals.classify import load
    from charter.refusals.tokens import answer, sweep

    with stages() as step:
        answered = answer(model, asked, load(), max_tokens, step)
    return sweep(answered, model.marks, levels, shift, seed)


def _answer(model: Any, ask: str, rule: Any, max_tokens: int, seed: int, as_json: bool) -> str:
    from dataclasses import asdict

    from charter.models.generation import Sampling
    from charter.records import Turn

    reply = model.generate((Turn("user", ask),), rule, Sampling(max_tokens, temperature=0, seed=seed))
    if as_json:
        return json.dumps(asdict(reply), ensure_ascii=False)
    token = f"refuse{':' * bool(reply.clause)}{reply.clause}" if reply.refused else "respond"
    return f"[{token}] p(refuse) {reply.p_refuse:.4f}\n{reply.text}"


def _lines(found: dict[str, Any]) -> list[str]:
    """The sweep for people."""
    area, first = found["auroc"], found["argmax"]
    n = {side: first[side]["token"]["n"] for side in ("restricted", "permitted")}
    head = f"{n['restricted']:,} restricted and {n['permitted']:,} permitted prompts ({found['split']} split, seed {found['seed']}); "
    lines = [
        head + f"AUROC of p(refuse) {_share(area)}",
        f"{'':10}  {'restricted':^41}  {'permitted':^41}",
        f"{'threshold':10}" + f"  {'token refuses':>19}   {'reply refuses':>19}" * 2,
    ]
    rows = [("argmax", first), *((f"{row['threshold']:g}", row) for row in found["thresholds"])]
    for name, row in rows:
        cells = [_share(row[side][what]) for side in ("restricted", "permitted") for what in ("token", "behaviour")]
        lines.append(f"{name:10}" + "".join(f"  {cell:>20}" for cell in cells))
    for side, after in found["behaviour_after"].items():
        lines.append(f"{side}: the reply refuses after [refuse] {_share(after['refuse'])}, after [respond] {_share(after['respond'])}")
    for clause, moved in found["categories"].items():
        lines += ["", f"{clause}: its own threshold alone; this token / another refusal"]
        for row in moved:
            cells = [f"{name} {_share(row[name]['token'])} / {_share(row[name]['others'])}" for name in ("own", "restricted", "permitted")]
            lines.append(f"{row['threshold']:<10g}" + "  ".join(cells))
    return lines


def _share(i: dict[str, Any] | None) -> str:
    return "–" if i is None or i["value"] is None else f"{i['value']:.2f} [{i['low']:.2f}, {i['high']:.2f}]"
