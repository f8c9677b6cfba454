"""Sequences of a batch: the turns that are read one after the other, and their states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from charter.models.backbone import Backbone
from charter.models.overlap import Overlapping
from charter.models.stage import Stage
from charter.models.turn import Run, TurnScorer
from charter.records import Exchange

BATCH_TOKENS = 2_048
"""Tokens in one padded forward: beyond this a 2-core machine gains nothing."""
Lane = list[tuple[TurnScorer | None, Run]]
"""The turns of one sequence; without a scorer those that nobody judges, which are only what the others follow."""


@dataclass(slots=True)
class Member:
    """An exchange of a batch and the two sequences that are read of it."""

    exchange: Exchange
    conversation: Lane
    """By the prompt view, and the reply by the exchange view."""
    alone: Lane
    """The reply by the reply view; nothing without that view or a reply."""


def ids(lane: Lane) -> list[int]:
    """All token ids of a sequence."""
    return [i for _, run in lane for piece in run.pieces for i in piece.ids]


def judged(lane: Lane) -> list[Run]:
    """The turns that somebody judges."""
    return [run for scorer, run in lane if scorer]


def reach_of(lane: Lane, stage: Stage, number: int) -> int:
    """How many tokens of a sequence a stage has to read: up to the end of the last turn that is escalated."""
    reach = end = 0
    for scorer, run in lane:
        end += sum(len(piece.ids) for piece in run.pieces)
        if scorer and run.reaches(number, stage.escalate[run.view]):
            reach = end
    return reach


def states_of(backbone: Backbone, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Hidden states [tokens, layers, width] of token sequences, in one forward where they are short; of none, nothing."""
    nothing = torch.empty(0, len(backbone.layers), backbone.width)
    longest = max(map(len, rows))
    if longest > (backbone.context if backbone.plain else min(BATCH_TOKENS, backbone.context)):
        # A long exchange goes through a stream: beyond the context in windows, and else because its attention would not fit a padded batch.
        return [Overlapping(backbone).feed(row) for row in rows]
    asked = [number for number, row in enumerate(rows) if row]
    out = [nothing] * len(rows)
    for number, states in zip(asked, backbone.apart([rows[number] for number in asked]) if asked else (), strict=True):
        out[number] = states
    return out
