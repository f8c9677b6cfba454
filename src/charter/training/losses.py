"""The losses of the papers on token logits, and the smoothing of logits that comes before them.

Softmax-weighted on window means for the probe, annealed cumulative maximum for the value head; its ends are plain BCE on every
token (omega = 0) and the pure cumulative maximum (omega = 1).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

TEMPERATURE = 1.0
"""tau of the paper."""
Smoothing = Literal["mean", "ema"]


def smoothing_matrix(kind: Smoothing, window: int, length: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[length, length]: row t makes the smoothed logit after token t out of the logits up to it; each row sums to 1.

    "mean" is the sliding window of arXiv 2601.04603 (what exists, while there are fewer than `window` tokens), "ema" what serving
    does, with decay (window - 1) / window and its weights normalised (`models.probe.MovingAverage`).
    """
    age = torch.arange(length, dtype=dtype)[:, None] - torch.arange(length, dtype=dtype)
    weights = (age < window).to(dtype) if kind == "mean" else ((window - 1) / window) ** age.clamp_min(0)
    weights = torch.where(age >= 0, weights, 0.0)
    return weights / weights.sum(1, keepdim=True)


def softmax_weighted(logits: Tensor, labels: Tensor, owner: Tensor, n: int, detach: bool = False) -> Tensor:
    """Mean over exchanges of sum_t w_t BCE(y, z_t), with w_t = softmax over the exchange's windows of z_t / tau.

    The loudest windows of an exchange carry its label.

    Args:
        logits: [windows, heads].
        labels: [n, heads], 0 or 1, of the exchanges.
        owner: int [windows], the exchange of each window.
        n: number of exchanges.
        detach: hold the weights fixed in the gradient. The paper leaves it open; `docs/study.md` compares.

    Returns:
        the sum over heads, a scalar.
    """
    scaled = logits / TEMPERATURE

    # index_select, not [owner]: the gradient of the latter adds in whatever order the threads come, so no two fits were the same
    def spread(x: Tensor) -> Tensor:
        return x.index_select(0, owner)

    where = owner[:, None].expand_as(logits)
    top = torch.full((n, logits.shape[1]), -torch.inf, dtype=logits.dtype).scatter_reduce(0, where, scaled.detach(), "amax")
    e = torch.exp(scaled - spread(top))
    weights = e / spread(torch.zeros(n, logits.shape[1], dtype=logits.dtype).index_add(0, owner, e))
    loss = binary_cross_entropy_with_logits(logits, spread(labels), reduction="none")
    return ((weights.detach() if detach else weights) * loss).sum() / n


def annealed_cummax(logits: Tensor, labels: Tensor, mask: Tensor, omega: float) -> Tensor:
    """The streaming loss of Constitutional Classifiers (arXiv 2501.18837; formula in 2601.04603): mean over exchanges of
    (1/T) sum_t BCE(y, p^_t), with p^_t = (1 - omega) p_t + omega max_{s <= t} p_s.

    A stop can't be taken back, so what serving acts on is the running maximum; but its gradient reaches one token only, so
    training starts from every token's own loss (omega = 0) and goes over to it. Computed on logits: no probability is formed,
    and logits of any size stay finite.

    Args:
        logits: [rows, tokens, heads], padded anywhere.
        labels: [rows, heads], 0 or 1, of the exchanges; each holds for all tokens of its row.
        mask: bool [rows, tokens], the tokens that are scored; the others neither count nor take part in the maximum. At least one a row.
        omega: share of the running maximum, 0 to 1.

    Returns:
        the sum over heads, a scalar.
    """
    counted = mask[..., None]
    running = torch.where(counted, logits, -torch.inf).cummax(1).values
    z, top = torch.where(counted, logits, 0.0), torch.where(counted, running, 0.0)
    own, share = math.log1p(-omega) if omega < 1 else -math.inf, math.log(omega) if omega > 0 else -math.inf
    harmful = torch.logaddexp(own + logsigmoid(z), share + logsigmoid(top))
    harmless = torch.logaddexp(own + logsigmoid(-z), share + logsigmoid(-top))
    y = labels[:, None]
    loss = -(y * harmful + (1 - y) * harmless) * counted
    return (loss.sum(1) / mask.sum(1, keepdim=True)).sum(1).mean()
