"""The options of training, which `charter train` and `charter build` share, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from charter.training.train import Options
    from charter.training.value_head import Options as HeadOptions

Budget = Annotated[float, typer.Option(min=1e-6, max=0.5, help="Share of ordinary harmless exchanges that may be refused.")]
NearMissBudget = Annotated[float, typer.Option(min=1e-6, max=0.9, help="The same for near misses (the permitted clauses' own examples).")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 2, help="Drives every draw: the same seed gives the same figures and files.")]
UNITS = 128
"""training.hidden.UNITS, which can't be imported here without torch; a test holds the two together."""
Loss = Literal["softmax", "bce", "cummax", "annealed"]
Units = Annotated[int, typer.Option(min=0, max=4096, help="Width of the probe's hidden layer; 0: the linear probe of the paper.")]
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
HeldOutMembers = Annotated[
    int,
    typer.Option("--held-out-members", min=0, max=999, help="How many of those do not serve; `charter score --held-out` judges by them."),
]
ScreenFirst = Annotated[bool, typer.Option("--screen-first", help="Run the backbone only on what the screen finds suspicious.")]
ValueHead = Annotated[
    bool,
    typer.Option("--value-head", help="Fine-tune a value head too, asked about what the rest finds suspicious. Slow without a GPU."),
]
SentenceEncoderName = Annotated[
    str | None,
    typer.Option(
        "--sentence-encoder", help="Let a second model read whole turns of the prompt: minilm (a package of 84 MB), a folder, or a hub id."
    ),
]
EncoderEpochs = Annotated[
    int,
    typer.Option(
        "--encoder-epochs", min=0, max=100, help="Passes over the prompts in which that model is tuned to them; 0: left as it is."
    ),
]
HeadDepth = Annotated[int | None, typer.Option(min=1, help="Blocks of the backbone that the value head runs; all if left out.")]
HeadBlocks = Annotated[int, typer.Option(min=0, help="Blocks that are fine-tuned, the last of those; 0 for all.")]
HeadRank = Annotated[int, typer.Option(min=0, help="Rank of the value head's adapters; 0 trains all weights of its blocks.")]
HeadEpochs = Annotated[int, typer.Option(min=1, help="Passes over the data.")]
HeadLr = Annotated[float, typer.Option(min=1e-8, max=1.0, help="Highest learning rate of the value head's blocks.")]


def options(
    *, budget: float, near_miss_budget: float, backbone: str, balanced_budget: float | None, screen_first: bool, seed: int, units: int,
    loss: Loss, views: str, window: int, ema: int | None, layers: str | None, ensemble: int, held_out: int, head: HeadOptions | None,
    sentence_encoder: str | None, encoder_epochs: int,
) -> Options:  # fmt: skip
    """What training is told, checked as far as can be without data: `charter build` finds out before it synthesizes.

    Raises:
        DataError: the balanced point's budget is less than the guard's own, or views, layers or members are none that can be; or there
            is no sentence encoder to tune.
        BackboneError: the sentence encoder's package is missing.
    """
    from charter.errors import DataError
    from charter.guard.recalibrate import check_balanced
    from charter.models.probe import Averaging
    from charter.models.sentence import place
    from charter.training.train import Options, check_members, check_views

    check_balanced(budget, balanced_budget)
    check_members(ensemble, held_out)
    if encoder_epochs and not sentence_encoder:
        raise DataError("--encoder-epochs tunes a sentence encoder; name one with --sentence-encoder, or leave it out")
    if sentence_encoder:
        place(sentence_encoder)
    return Options(
        budget, near_miss_budget, backbone, layers=numbers(layers) if layers else None,
        averaging=Averaging(window, window if ema is None else ema), units=units, seed=seed, loss=loss, ensemble=ensemble,
        held_out=held_out, balanced_budget=balanced_budget, screen_first=screen_first, value_head=head, views=check_views(views.split(",")),
        sentence_encoder=sentence_encoder, encoder_epochs=encoder_epochs,
    )  # fmt: skip


def head_options(wanted: bool, depth: int | None, blocks: int, rank: int, epochs: int, lr: float) -> HeadOptions | None:
    """What the value head's training is told; None where none is wanted."""
    from dataclasses import replace

    from charter.training.value_head import Options as HeadOptions

    if not wanted:
        return None
    own = HeadOptions(depth=depth, blocks=blocks, rank=rank, epochs=epochs, lr=lr)
    return own if depth is None else replace(own, next_token=0.0)  # that loss needs the model's last block


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
