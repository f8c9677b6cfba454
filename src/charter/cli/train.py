"""charter train: examples to a guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from charter.cli import training

if TYPE_CHECKING:
    from charter.guard.record import GuardRecord
    from charter.training.train import Options

HeldOut = Annotated[
    int,
    typer.Option(
        "--held-out", "--held-out-members", min=0, max=999,
        help="How many of the ensemble do not serve; `charter score --held-out` judges by them.",
    ),
]  # fmt: skip
"""`training.HeldOutMembers` under its shorter name too, which means families where there is synthesis."""


def command(
    data: Annotated[Path, typer.Argument(help="Folder written by `charter synthesize`.")],
    out: Annotated[Path, typer.Option(help="Folder for the guard.")],
    budget: training.Budget = 0.01,
    near_miss_budget: training.NearMissBudget = 0.1,
    backbone: training.BackboneName = "embedded",
    balanced_budget: training.BalancedBudget = None,
    screen_first: training.ScreenFirst = False,
    value_head: training.ValueHead = False,
    head_depth: training.HeadDepth = None,
    head_blocks: training.HeadBlocks = 6,
    head_rank: training.HeadRank = 16,
    head_epochs: training.HeadEpochs = 3,
    head_lr: training.HeadLr = 5e-4,
    seed: training.Seed = 0,
    units: training.Units = training.UNITS,
    loss: training.ProbeLoss = "softmax",
    views: training.Views = "prompt,exchange",
    sentence_encoder: training.SentenceEncoderName = None,
    encoder_epochs: training.EncoderEpochs = 0,
    window: training.Window = 16,
    ema: training.Ema = None,
    layers: training.Layers = None,
    ensemble: training.Members = 0,
    held_out_members: HeldOut = 0,
) -> None:
    """Train the scorers on examples and calibrate them to the budget."""
    head = training.head_options(value_head, head_depth, head_blocks, head_rank, head_epochs, head_lr)
    options = training.options(
        budget=budget, near_miss_budget=near_miss_budget, backbone=backbone, balanced_budget=balanced_budget, screen_first=screen_first,
        seed=seed, units=units, loss=loss, views=views, window=window, ema=ema, layers=layers, ensemble=ensemble,
        held_out=held_out_members, head=head, sentence_encoder=sentence_encoder,
        encoder_epochs=encoder_epochs,
    )  # fmt: skip
    run(data, out, options)


def run(data: Path, out: Path, options: Options) -> None:
    """Train, and say where the guard stands."""
    from charter.cli.progress import stages
    from charter.constitution import load
    from charter.errors import DataError
    from charter.guard.pack import pack
    from charter.records import check_whole
    from charter.training.train import train

    if not (data / "constitution.yaml").is_file():
        raise DataError(f"{data}: holds no constitution.yaml; give the folder that `charter synthesize` wrote")
    check_whole(data)
    constitution = load(data / "constitution.yaml")
    with stages() as step:
        trained = train(data, constitution, options, step)
    say(pack(trained, constitution, out), out)


def say(record: GuardRecord, out: Path) -> None:
    """The thresholds and what they promise, and where the guard stands."""
    for view, point in record.views.items():
        typer.echo(f"{view}: threshold {point.threshold:.3f}, probe's share {point.mix:g}. {point.sentence}", err=True)
        stages = (("backbone", point.gate), ("value head", point.head and point.head.gate))
        for name, gate in stages:
            if gate:
                typer.echo(f"  the {name} reads {gate.read:.1%} of the tokens of ordinary dev traffic", err=True)
    if whole := record.whole:
        typer.echo(f"  the sentence encoder's share of a prompt's logit is {whole.mix:g}", err=True)
    typer.echo(f"guard: {out}")
