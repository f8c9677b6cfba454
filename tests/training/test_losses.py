import math

import numpy as np
import pytest
import torch

from charter.training.losses import softmax_weighted


def by_hand(z: list[list[float]], y: list[float]) -> float:
    """The paper's formula, an exchange at a time: L = mean_i sum_t w_t BCE(y, sigmoid(z_t)), w = softmax(z)."""
    total = 0.0
    for windows, label in zip(z, y, strict=True):
        weights = [math.exp(v) for v in windows]
        losses = [math.log1p(math.exp(-v)) if label else math.log1p(math.exp(v)) for v in windows]
        total += sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    return total / len(y)


def test_the_loss_is_the_papers_formula() -> None:
    z = [[0.3, -1.2, 2.0], [0.1], [-3.0, 4.0]]
    y = [1.0, 0.0, 0.0]
    logits = torch.tensor([v for windows in z for v in windows])[:, None]
    owner = torch.tensor([0, 0, 0, 1, 2, 2])
    assert softmax_weighted(logits, torch.tensor(y)[:, None], owner, 3).item() == pytest.approx(by_hand(z, y), rel=1e-5)


def test_heads_add_up_and_do_not_mix() -> None:
    rng = np.random.default_rng(0)
    logits, labels = torch.tensor(rng.normal(size=(9, 2))), torch.tensor(rng.integers(0, 2, size=(4, 2)).astype(float))
    owner = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3])
    both = softmax_weighted(logits.float(), labels.float(), owner, 4)
    apart = sum(softmax_weighted(logits[:, [h]].float(), labels[:, [h]].float(), owner, 4) for h in (0, 1))
    assert both.item() == pytest.approx(float(apart), rel=1e-5)


def test_huge_logits_stay_finite() -> None:
    logits = torch.tensor([[800.0], [-800.0]], requires_grad=True)
    loss = softmax_weighted(logits, torch.tensor([[0.0]]), torch.tensor([0, 0]), 1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
