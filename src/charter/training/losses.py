"""The softmax-weighted loss of Constitutional Classifiers++ (arXiv 2601.04603), on window means."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

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
