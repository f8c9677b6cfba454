"""charter train: examples to a guard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from charter.guard.record import GuardRecord
    from charter.training.train import Options

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
BalancedBudget = Annotated[
    float | None,
    typer.Option(min=1e-6, max=0.5, help="Budget of the second, more sensitive operating point, `balanced`; 0.13 if left out."),
]
Views = Annotated[
    str,
    typer.Option(help="What is judged: prompt, and replies by exchange (in their prompt's light), by reply (alone), or by both."),
]
Window = Annotated[int, typer.Option(min=1, max=1024, help="Tokens over which the probe's logits are averaged in training.")]
Ema = Annotated[
    int | None,
    typer.Option(min=0, max=1024, help="Span of the moving average when serving; 0: the window's mean. The window's length if left out."),
]
Layers = Annotated[
    str | None, typer.Option(help="Blocks of the backbone that the probe reads, such as 8-20 or 4,8,12; chosen by the data if left out.")
]
Members = Annotated[int, typer.Option(min=0, max=1000, help="Bootstrap members of the linear probe in place of one; 0: one probe.")]
HeldOut = Annotated[
    int, typer.Option(min=0, max=999, help="How many of the ensemble do not serve; `charter score --held-out` judges by them.")
]
ScreenFirst = Annotated[bool, typer.Option("--screen-first", help="Run the backbone only on what the screen finds suspicious.")]
ValueHead = Annotated[
    bool,
    typer.Option("--value-head", help="Fine-tune a value head too, asked about what the rest finds suspicious. Slow without a GPU."),
]
HeadDepth = Annotated[int | None, typer.Option(min=1, help="Blocks of the backbone that the value head runs; all if left out.")]
HeadBlocks = Annotated[int, typer.Option(min=0, help="Blocks that are fine-tuned, the last of those; 0 for all.")]
HeadRank = Annotated[int, typer.Option(min=0, help="Rank of the value head's adapters; 0 trains all weights of its blocks.")]
HeadEpochs = Annotated[int, typer.Option(min=1, help="Passes over the data.")]
HeadLr = Annotated[float, typer.Option(min=1e-8, max=1.0, help="Highest learning rate of the value head's blocks.")]


def command(
    data: Annotated[Path, typer.Argument(help="Folder written by `charter synthesize`.")],
    out: Annotated[Path, typer.Option(help="Folder for the guard.")],
    budget: Budget = 0.01,
    near_miss_budget: NearMissBudget = 0.1,
    backbone: BackboneName = "embedded",
    balanced_budget: BalancedBudget = None,
    screen_first: ScreenFirst = False,
    value_head: ValueHead = False,
    head_depth: HeadDepth = None,
    head_blocks: HeadBlocks = 6,
    head_rank: HeadRank = 16,
    head_epochs: HeadEpochs = 3,
    head_lr: HeadLr = 5e-4,
    seed: Seed = 0,
    units: Annotated[
        int, typer.Option(min=0, max=4096, help="Width of the probe's hidden layer; 0: the linear probe of the paper.")
    ] = UNITS,
    loss: ProbeLoss = "softmax",
    views: Views = "prompt,exchange",
    window: Window = 16,
    ema: Ema = None,
    layers: Layers = None,
    ensemble: Members = 0,
    held_out: HeldOut = 0,
) -> None:
    """Train the scorers on examples and calibrate them to the budget."""
    from dataclasses import replace

    from charter.models.probe import Averaging
    from charter.training.train import check_views

    head = (head_depth, head_blocks, head_rank, head_epochs, head_lr) if value_head else None
    chosen = options(budget, near_miss_budget, backbone, seed, balanced_budget, screen_first, head, units, loss)
    averaging = Averaging(window, window if ema is None else ema)
    chosen = replace(chosen, averaging=averaging, layers=numbers(layers) if layers else None, ensemble=ensemble, held_out=held_out)
    run(data, out, replace(chosen, views=check_views(views.split(","))))


def numbers(text: str) -> tuple[int, ...]:
    """Numbers and ranges of numbers, such as 4,8-10, in order.

    Raises:
        DataError: it is something else, or one comes twice.
    """
    from charter.errors import DataError

    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)) or max(len(first), len(last)) > 4:
            raise DataError(f"--layers: {part!r} is no block's number; write numbers and ranges, such as 8-20 or 4,8,12")
        found += range(int(first), int(last if dash else first) + 1)
    if not found or len(set(found)) < len(found) or min(found) < 1:
        raise DataError(f"--layers: {text!r} must name blocks from 1 on, each once, such as 8-20 or 4,8,12")
    return tuple(sorted(found))


def options(
    budget: float, near_miss_budget: float, backbone: str, seed: int, balanced_budget: float | None, screen_first: bool,
    head: tuple[int | None, int, int, int, float] | None, units: int = UNITS, loss: Loss = "softmax",
) -> Options:  # fmt: skip
    """What training is told; `head` is depth, blocks, rank, epochs and learning rate, None for no value head.

    Raises:
        DataError: the balanced point's budget is less than the guard's own.
    """
    from dataclasses import replace

    from charter.guard.recalibrate import check_balanced
    from charter.training.train import Options
    from charter.training.value_head import Options as HeadOptions

    check_balanced(budget, balanced_budget)
    own = None
    if head:
        depth, blocks, rank, epochs, lr = head
        own = HeadOptions(depth=depth, blocks=blocks, rank=rank, epochs=epochs, lr=lr)
        own = own if depth is None else replace(own, next_token=0.0)  # that loss needs the model's last block
    return Options(
        budget, near_miss_budget, backbone, units=units, seed=seed, loss=loss, balanced_budget=balanced_budget,
        screen_first=screen_first, value_head=own,
    )  # fmt: skip


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
    typer.echo(f"guard: {out}")
