"""charter train: examples to a guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from charter.guard.folder import GuardRecord

Budget = Annotated[float, typer.Option(min=1e-6, max=0.5, help="Share of ordinary harmless exchanges that may be refused.")]
NearMissBudget = Annotated[float, typer.Option(min=1e-6, max=0.9, help="The same for near misses (the permitted clauses' own examples).")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Drives every draw: the same seed gives the same figures and files.")]
UNITS = 128
"""training.hidden.UNITS, which can't be imported here without torch; a test holds the two together."""
Loss = Literal["softmax", "bce", "cummax", "annealed"]
ProbeLoss = Annotated[
    Loss, typer.Option(help="Of the probe: the loudest windows (softmax), all alike (bce), running maximum, or annealed to it.")
]
BackboneName = Annotated[str, typer.Option(help="Model whose hidden states are read: embedded, a folder, or a hub id.")]


def command(
    data: Annotated[Path, typer.Argument(help="Folder written by `charter synthesize`.")],
    out: Annotated[Path, typer.Option(help="Folder for the guard.")],
    budget: Budget = 0.01,
    near_miss_budget: NearMissBudget = 0.1,
    backbone: BackboneName = "embedded",
    seed: Seed = 0,
    units: Annotated[
        int, typer.Option(min=0, max=4096, help="Width of the probe's hidden layer; 0: the linear probe of the paper.")
    ] = UNITS,
    loss: ProbeLoss = "softmax",
) -> None:
    """Train the scorers on examples and calibrate them to the budget."""
    run(data, out, budget, near_miss_budget, backbone, seed, units, loss)


def run(
    data: Path, out: Path, budget: float, near_miss_budget: float, backbone: str, seed: int, units: int = UNITS, loss: Loss = "softmax"
) -> None:
    """Train, and say where the guard stands."""
    from charter.cli.progress import stages
    from charter.constitution import load
    from charter.errors import DataError
    from charter.guard.pack import pack
    from charter.records import check_whole
    from charter.training.train import Options, train

    if not (data / "constitution.yaml").is_file():
        raise DataError(f"{data}: holds no constitution.yaml; give the folder that `charter synthesize` wrote")
    check_whole(data)
    constitution = load(data / "constitution.yaml")
    with stages() as step:
        trained = train(data, constitution, Options(budget, near_miss_budget, backbone, units=units, seed=seed, loss=loss), step)
    say(pack(trained, constitution, out), out)


def say(record: GuardRecord, out: Path) -> None:
    """The thresholds and what they promise, and where the guard stands."""
    for view, point in record.views.items():
        typer.echo(f"{view}: threshold {point.threshold:.3f}, probe's share {point.mix:g}. {point.sentence}", err=True)
    typer.echo(f"guard: {out}")
