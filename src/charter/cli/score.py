"""charter score: exchanges in, verdicts out, one JSON a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.point import Point

if TYPE_CHECKING:
    from charter.guard.folder import Guard
    from charter.models.scored import Scored
    from charter.records import Exchange, Verdict


def command(
    guard: Annotated[Path, typer.Argument(help="A guard's folder, or the name of a shipped guard: general.")],
    file: Annotated[
        Path | None, typer.Option(help='JSONL of {"id", "messages": [{"role", "content"}]}; standard input if left out.')
    ] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Print every token with its score.")] = False,
    mode: Annotated[str, typer.Option(help="enforce, or shadow: verdicts without blocks.")] = "enforce",
    point: Point = "quiet",
    held_out: Annotated[bool, typer.Option("--held-out", help="Judge by the ensemble's held-out members, as an attack should be.")] = False,
) -> None:
    """Score exchanges: a conversation that ends in a reply is judged by its reply, else by its prompt."""
    from charter.errors import DataError
    from charter.guard.folder import load

    if mode not in ("enforce", "shadow"):
        raise DataError(f"--mode is `enforce` or `shadow`, not {mode!r}")
    loaded = load(guard, point=point)
    loaded = loaded.held_out() if held_out else loaded
    long = 0
    for scored, verdict in loaded.score(exchanges(file)):
        long += scored.windowed
        typer.echo(json.dumps(_line(loaded, scored, verdict, mode, tokens), ensure_ascii=False))
    if long:
        typer.echo(f"{long:,} longer than the context: read in overlapping windows here; `charter serve` takes none of them", err=True)


def exchanges(file: Path | None) -> Iterator[Exchange]:
    """The rows of a JSONL file, or of standard input.

    Raises:
        DataError: a line can't be read; names it.
    """
    from charter.errors import DataError
    from charter.records import Exchange, parse_object, parse_turns, read_jsonl

    if file is not None and not file.is_file():
        raise DataError(f"{file}: there is no such file")
    name = str(file) if file else "standard input"
    rows = read_jsonl(file) if file else ((n, parse_object(line, f"{name}:{n}")) for n, line in enumerate(sys.stdin, 1) if line.strip())
    for number, row in rows:
        yield Exchange(str(row.get("id", number)), parse_turns(row.get("messages"), f"{name}:{number}"))


def _line(guard: Guard, scored: Scored, verdict: Verdict, mode: str, tokens: bool) -> dict[str, Any]:
    from dataclasses import asdict

    import numpy as np

    from charter.guard.policy import decide

    action = decide(verdict, "shadow" if mode == "shadow" else "enforce")
    line: dict[str, Any] = {"id": scored.exchange.id, "verdict": asdict(verdict), "action": action}
    if len(scored.judged) > 1:
        line["views"] = {view: asdict(own) for view, own in guard.judged(scored).verdicts.items()}
    apart = _disagreement(guard, scored) if guard.record.ensemble else None
    if apart is not None:
        line["disagreement"] = round(apart[1], 4)
    if tokens:
        # Of several views' probabilities the highest; the shape stays [text, score].
        p = np.max([guard.policies[view].probability(z[:, 0]) for view, z in scored.judged.items()], axis=0)
        line["tokens"] = [[text, round(float(score), 4)] for text, score in zip(scored.judged_texts, p, strict=True)]
    if tokens and apart is not None:
        line["disagreements"] = [round(float(own), 4) for own in apart[0]]
    return line


def _disagreement(guard: Guard, scored: Scored) -> tuple[Any, float]:
    """The ensemble's disagreement after each token, and at the loudest: one more forward."""
    from charter.models.members import disagreements

    return disagreements(guard.cascade, scored.exchange)
