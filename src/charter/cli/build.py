"""charter build: constitution to guard, the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from charter.cli import engine, families, synthesize, train
from charter.cli import rounds as redteam


def command(
    file: synthesize.File,
    out: Annotated[Path, typer.Option(help="Folder for the guard.")],
    data: Annotated[Path | None, typer.Option(help="Folder for the examples; beside the guard if left out.")] = None,
    teacher: synthesize.TeacherName = None,
    teacher_model: synthesize.TeacherModel = None,
    per_clause: synthesize.PerClause = None,
    per_pool: synthesize.PerPool = None,
    max_cost: synthesize.MaxCost = None,
    price: synthesize.Price = (0.0, 0.0),
    family: families.FamilyNames = None,
    held_out: families.HeldOut = None,
    augment: families.Augment = None,
    exclude: synthesize.Exclude = None,
    audited: synthesize.Audited = None,
    concurrency: engine.Concurrency = engine.CONCURRENCY,
    engine_: engine.EngineName = engine.Place.local,
    budget: train.Budget = 0.01,
    near_miss_budget: train.NearMissBudget = 0.1,
    backbone: train.BackboneName = "embedded",
    balanced_budget: train.BalancedBudget = None,
    screen_first: train.ScreenFirst = False,
    value_head: train.ValueHead = False,
    head_depth: train.HeadDepth = None,
    head_blocks: train.HeadBlocks = 6,
    head_rank: train.HeadRank = 16,
    head_epochs: train.HeadEpochs = 3,
    head_lr: train.HeadLr = 5e-4,
    seed: train.Seed = 0,
    rounds: redteam.Rounds = 0,
) -> None:
    """Synthesize, train and calibrate in one: a constitution in, a guard out."""
    head = (head_depth, head_blocks, head_rank, head_epochs, head_lr) if value_head else None
    options = train.options(budget, near_miss_budget, backbone, seed, balanced_budget, screen_first, head)
    folder = data or out.parent / f"{out.name}-data"
    more = {**families.chosen(family, held_out, augment), "limit": concurrency, "per_pool": per_pool}
    synthesize.run(
        file, folder, teacher, teacher_model, per_clause, max_cost, price, seed, False, more, exclude or (), engine_, audited or ()
    )
    if rounds:
        redteam.run(folder, out, rounds, options)
    else:
        redteam.none(folder)
        train.run(folder, out, options)
