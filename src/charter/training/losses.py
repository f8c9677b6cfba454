"""The two losses of the papers: softmax-weighted on window means for the probe, annealed cumulative maximum for the value head."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

TEMPERATURE = 1.0
"""tau of the paper."""


def softmax_weighted(logits: Tensor, labels: Tensor, owner: Tensor, n: int) -> Tensor:
    """Mean over exchanges of sum_t w_t BCE(y, z_t), with w_t = softmax over the exchange's windows of z_t / tau.

    The loudest windows of an exchange carry its label. Gradients flow through the weights (the paper leaves it open).

    Args:
        logits: [windows, heads].
        labels: [n, heads], 0 or 1, of the exchanges.
        owner: int [windows], the exchange of each window.
        n: number of exchanges.

    Returns:
        the sum over heads, a scalar.
    """
    scaled = logits / TEMPERATURE
    e = torch.exp(scaled - scaled.detach().max(0).values)
    total = torch.zeros(n, logits.shape[1]).index_add(0, owner, e)
    weights = e / total[owner].clamp_min(1e-30)
    loss = binary_cross_entropy_with_logits(logits, labels[owner], reduction="none")
    return (weights * loss).sum() / n


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
