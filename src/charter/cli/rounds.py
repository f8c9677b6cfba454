"""The rounds of `charter build --rounds N`: train, attack, train again, and say what it was worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from charter.redteam.ledger import Round
    from charter.statistics import Interval
    from charter.training.train import Options as Training

Rounds = Annotated[
    int, typer.Option(min=0, max=50, help="Red-team rounds: attack the guard, train on what gets through, measure on held-out families.")
]


def none(data: Path) -> None:
    """Set aside what rounds of an earlier run added to the data, so that training doesn't see it."""
    from charter.redteam.ledger import set_aside

    set_aside(data, 0)


def run(data: Path, out: Path, rounds: int, training: Training) -> None:
    """Train in rounds. What an earlier run with more rounds added is set aside, so that the data folder gives the guard again."""
    from charter import __version__
    from charter.cli import train
    from charter.cli.progress import stages
    from charter.constitution import load
    from charter.guard.folder import read_record
    from charter.redteam.arsenal import arsenal, held_out_of
    from charter.redteam.guarded import reopener, trainer
    from charter.redteam.rounds import Options, run

    constitution = load(data / "constitution.yaml")
    options = Options(rounds, training.seed, trained_with=f"{__version__} {training}")
    with stages() as step:
        ledger = run(
            data, constitution, trainer(constitution, training, out, step), arsenal(held_out_of(data)), options,
            reopen=reopener(out), progress=step, said=lambda entry: typer.echo(line(entry), err=True),
        )  # fmt: skip
    train.say(read_record(out)[0], out)
    typer.echo("\n".join(table(ledger.rounds)))


def line(entry: Round) -> str:
    """A round in one line."""
    assert entry.guard is not None
    found = entry.guard.heldout
    head = f"round {entry.round}: "
    if entry.attack:
        a = entry.attack
        head += f"{a.tried:,} disguises of {a.parents:,} prompts, {a.got_through:,} got through, {a.kept:,} kept, {a.added:,} rows added; "
    rise = f", {_points(found.rise)} points over round 0" if found.rise else ""
    return head + f"held-out families: recall {_share(found.recall_at_1pct)} at 1 % false positives{rise}"


def table(entries: Sequence[Round]) -> list[str]:
    """Recall on held-out families after each round: over all, and by family."""
    reports = [entry.guard.heldout for entry in entries if entry.guard]
    first = reports[0].all
    lines = [f"held-out families, {first.restricted:,} restricted and {first.harmless:,} harmless test prompts (95 % intervals)"]
    lines += [f"{'round':<28}" + "".join(f"{number:>22}" for number in range(len(reports)))]
    rows: list[tuple[str, list[Interval | None]]] = [
        ("recall at 1 % FPR", [r.recall_at_1pct for r in reports]),
        ("  over round 0, points", [r.rise for r in reports]),
    ]
    rows += [("recall, own threshold", [r.all.recall for r in reports]), ("FPR, own threshold", [r.all.fpr for r in reports])]
    rows += [(name, [r.families[name].recall_at_1pct for r in reports]) for name in reports[0].families]
    return lines + [
        f"{name:<28}" + "".join(f"{_points(i) if 'points' in name else _share(i):>22}" for i in values) for name, values in rows
    ]


def _share(i: Interval | None) -> str:
    if i is None or i.value is None or i.low is None or i.high is None:
        return "-"
    return f"{i.value:.1%} [{100 * i.low:.1f}, {100 * i.high:.1f}]"


def _points(i: Interval | None) -> str:
    if i is None or i.value is None or i.low is None or i.high is None:
        return "-"
    return f"{100 * i.value:+.1f} [{100 * i.low:+.1f}, {100 * i.high:+.1f}]"
