"""charter build: constitution to guard, the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from charter.cli import engine, families, synthesize, train, training
from charter.cli import rounds as redteam


def command(
    file: synthesize.File,
    out: Annotated[Path, typer.Option(help="Folder for the guard.")],
    data: Annotated[Path | None, typer.Option(help="Folder for the examples; beside the guard if left out.")] = None,
    teacher: synthesize.TeacherName = None,
    teacher_model: synthesize.TeacherModel = None,
    per_clause: synthesize.PerClause = None,
    per_pool: synthesize.PerPool = None,
    long_replies: synthesize.LongReplies = True,
    max_cost: synthesize.MaxCost = None,
    price: synthesize.Price = (0.0, 0.0),
    family: families.FamilyNames = None,
    held_out: families.HeldOut = None,
    augment: families.Augment = None,
    exclude: synthesize.Exclude = None,
    audited: synthesize.Audited = None,
    concurrency: engine.Concurrency = engine.CONCURRENCY,
    engine_: engine.EngineName = engine.Place.local,
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
    held_out_members: training.HeldOutMembers = 0,
    rounds: redteam.Rounds = 0,
) -> None:
    """Synthesize, train and calibrate in one: a constitution in, a guard out."""
    head = training.head_options(value_head, head_depth, head_blocks, head_rank, head_epochs, head_lr)
    options = training.options(
        budget=budget, near_miss_budget=near_miss_budget, backbone=backbone, balanced_budget=balanced_budget, screen_first=screen_first,
        seed=seed, units=units, loss=loss, views=views, window=window, ema=ema, layers=layers, ensemble=ensemble,
        held_out=held_out_members, head=head, sentence_encoder=sentence_encoder,
        encoder_epochs=encoder_epochs,
    )  # fmt: skip
    folder = data or out.parent / f"{out.name}-data"
    more = {**families.chosen(family, held_out, augment), "limit": concurrency, "per_pool": per_pool, "long_replies": long_replies}
    synthesize.run(
        file, folder, teacher, teacher_model, per_clause, max_cost, price, seed, False, more, exclude or (), engine_, audited or ()
    )
    if rounds:
        redteam.run(folder, out, rounds, options)
    else:
        redteam.none(folder)
        train.run(folder, out, options)
