"""Train the probe's hidden layer, on the same window means as the linear probe and with the same loss, and join the two.

The linear fit is convex and the hidden layer is not; each errs in its own way, so the probe is a mean of their logits. The layer
is small and held down hard (dropout on inputs and units, weight decay): on data of this size it would learn the rows by heart.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from charter.errors import DataError
from charter.models.probe import Hidden
from charter.training.activations import Windows
from charter.training.losses import softmax_weighted
from charter.training.probe import moments

UNITS = 128
DROPOUT = 0.5
"""Of units; of inputs half as much. 0.7 and more epochs changed nothing beyond noise (docs/decisions/009)."""
EPOCHS = 6
LEAST_STEPS = 300
"""In small data too."""
BATCH = 128
LINEAR_SHARE = 1 / 3
"""Of the linear probe in the mean. It ranks plain requests better than the layer alone, and unreadable text worse."""
RATE = 1e-3
DECAY = 0.05


def fit_hidden(
    windows: Windows,
    labels: NDArray[np.float32],
    columns: NDArray[np.int64],
    seed: int,
    units: int = UNITS,
    epochs: int = EPOCHS,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[Hidden, NDArray[np.float32]]:
    """The layer for raw, unstandardised inputs, and the bias [heads] that goes with it. The same seed gives the same weights.

    Args:
        labels: [exchanges, heads], 0 or 1.
        columns: the inputs to use.
        epochs: passes over the exchanges; small data get more.
        progress: called with the steps done and the steps there are.
    """
    mean, scale = moments(windows, columns)
    n, heads = labels.shape
    steps_an_epoch = -(-n // BATCH)
    steps = steps_an_epoch * max(epochs, -(-LEAST_STEPS // steps_an_epoch))
    y, rng = torch.from_numpy(labels), np.random.default_rng(seed)
    order = np.argsort(windows.owner, kind="stable")
    starts = np.searchsorted(windows.owner[order], np.arange(n + 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = _net(len(mean), units, heads, labels)
        optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
        for step in range(steps):
            if step % steps_an_epoch == 0:
                shuffled = rng.permutation(n)
            own = np.sort(shuffled[step % steps_an_epoch * BATCH :][:BATCH])
            picked = np.concatenate([order[starts[k] : starts[k + 1]] for k in own])
            owner = torch.from_numpy(np.repeat(np.arange(len(own)), starts[own + 1] - starts[own]))
            inputs = torch.from_numpy((windows.take(picked, columns) - mean) / scale)
            optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
            loss = softmax_weighted(net(inputs), y[own], owner, len(own))
            if not torch.isfinite(loss):
                raise DataError(
                    f"hidden layer: the loss of step {step + 1:,} of {steps:,} is not finite (exchange {own[0]:,} and others); --units 0 leaves it out"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress(step + 1, steps)
    return _folded(net, mean, scale)


def joined(
    linear: tuple[NDArray[np.float32], NDArray[np.float32]], hidden: tuple[Hidden, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], Hidden]:
    """Weights, biases and hidden layer of the probe whose logits are the mean of both; the layer rounded as it will be stored."""
    (weights, bias), (layer, own_bias) = linear, hidden
    share, rest = np.float32(LINEAR_SHARE), np.float32(1 - LINEAR_SHARE)
    return share * weights, share * bias + rest * own_bias, Hidden(layer.inner, layer.bias, rest * layer.outer).rounded()


def _net(inputs: int, units: int, heads: int, labels: NDArray[np.float32]) -> nn.Sequential:
    inner, outer = nn.Linear(inputs, units), nn.Linear(units, heads)
    positives = labels.sum(0)
    outer.bias.data = torch.from_numpy(np.log((positives + 1) / (len(labels) - positives + 1)))
    return nn.Sequential(nn.Dropout(DROPOUT / 2), inner, nn.GELU(), nn.Dropout(DROPOUT), outer)


def _folded(net: nn.Sequential, mean: NDArray[np.float32], scale: NDArray[np.float32]) -> tuple[Hidden, NDArray[np.float32]]:
    """The standardisation folded into the inner weights."""
    raw, bias, outer, own_bias = (np.array(p.detach(), np.float32) for p in net.parameters())
    inner: NDArray[np.float32] = raw / scale
    return Hidden(inner, bias - inner @ mean, outer), own_bias
