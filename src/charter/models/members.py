"""What the members of an ensemble make of an exchange, each by itself: a forward of its own, which serving does not need."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from charter.models.cascade import Cascade
from charter.models.ensemble import disagreement, mean_logit
from charter.models.overlap import Overlapping
from charter.records import REPLY_VIEWS, Exchange, View


def member_logits(cascade: Cascade, exchange: Exchange) -> dict[View, NDArray[np.float32]]:
    """Logits [members, tokens, heads] of the probe's serving members, by each view that judges the exchange.

    They are those of the scored tokens that `Scored.judged` has, before the screen's share.
    """
    views: tuple[View, ...] = ("prompt",) if exchange.reply is None else REPLY_VIEWS
    return {view: _logits(cascade, exchange, view) for view in views if view in cascade.views}


def disagreements(cascade: Cascade, exchange: Exchange) -> tuple[NDArray[np.float64], float]:
    """Standard deviation of the members' overall probabilities after each scored token, and at the loudest token.

    Of several views, that of the one whose members disagree most at a token. [tokens], 0 to 0.5.
    """
    by = [z[..., 0] for z in member_logits(cascade, exchange).values()]
    apart = np.max([disagreement(z) for z in by], axis=0)
    loudest = np.max([mean_logit(z) for z in by], axis=0)
    return apart, float(apart[np.argmax(loudest)])


def _logits(cascade: Cascade, exchange: Exchange, view: View) -> NDArray[np.float32]:
    encoder = cascade.backbone.encoder
    replies = [encoder.turn(turn) for turn in exchange.seen("reply")] if view != "prompt" else []
    turns = (encoder.prompt(exchange.prompt) if view != "reply" else []) + replies
    states = Overlapping(cascade.backbone).feed([i for pieces in turns for piece in pieces for i in piece.ids])
    found, at = [], 0
    for number, pieces in enumerate(turns):
        scored = [piece.text is not None for piece in pieces for _ in piece.ids]
        own, at = states[at : at + len(scored)], at + len(scored)
        if view == "prompt" or number == len(turns) - 1:
            found.append(cascade.probe.turn(view).members(own[torch.tensor(scored)]))
    return np.concatenate(found, axis=1)
