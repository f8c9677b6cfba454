"""The hidden layer: learns what no line can, says the same under the same seed, and joins the linear probe in a mean of logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from charter.cli import training as cli
from charter.models.probe import Hidden
from charter.statistics import auroc
from charter.training.activations import Windows
from charter.training.hidden import LINEAR_SHARE, UNITS, fit_hidden, joined
from charter.training.probe import fit_probe

COLUMNS = np.array([0, 2, 3])


@pytest.fixture(scope="module")
def xor() -> tuple[Windows, NDArray[np.float32]]:
    """400 exchanges of one or two windows whose label is the exclusive or of two signs; inputs far from standard."""
    rng = np.random.default_rng(3)
    owner = np.sort(np.concatenate([np.arange(400), rng.choice(400, 150)]))
    signs = rng.choice([-1.0, 1.0], (400, 2))
    inputs = np.concatenate([signs, rng.normal(size=(400, 2))], 1)[:, [0, 2, 1, 3]][owner] + 0.2 * rng.normal(size=(len(owner), 4))
    store = (inputs * [3, 1, 0.5, 1] + [10, 0, -2, 1]).astype(np.float16)
    labels = (signs[:, 0] * signs[:, 1] > 0).astype(np.float32)[:, None]
    return Windows(store, np.arange(len(owner)), owner), np.concatenate([labels, 1 - labels], 1)


def test_it_learns_what_a_linear_probe_can_not(xor: tuple[Windows, NDArray[np.float32]]) -> None:
    windows, labels = xor
    linear = fit_probe(windows, labels, 1e-2, columns=COLUMNS)
    hidden = fit_hidden(windows, labels, COLUMNS, seed=0, units=32)
    inputs, truth = windows.take(slice(None), COLUMNS), labels[windows.owner, 0] > 0.5
    straight = inputs @ linear[0].T + linear[1]
    bent = hidden[0].logits(inputs) + hidden[1]
    assert auroc(truth, straight[:, 0]) < 0.65
    assert auroc(truth, bent[:, 0]) > 0.95
    assert auroc(~truth, bent[:, 1]) > 0.95  # each head its own

    weights, bias, layer = joined(linear, hidden)
    both = inputs @ weights.T + bias + layer.logits(inputs)
    np.testing.assert_allclose(both, LINEAR_SHARE * straight + (1 - LINEAR_SHARE) * bent, atol=2e-2)  # the layer is rounded to float16
    np.testing.assert_array_equal(layer.inner, layer.rounded().inner)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_one_alone(xor: tuple[Windows, NDArray[np.float32]]) -> None:
    windows, labels = xor

    def fitted(seed: int) -> Hidden:
        return fit_hidden(windows, labels, COLUMNS, seed, units=4)[0]

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = fitted(0), fitted(0), fitted(1)
    np.testing.assert_array_equal(first.inner, again.inner)
    assert (first.inner != other.inner).any()
    assert torch.equal(before, torch.get_rng_state())


def test_the_command_line_names_the_same_width() -> None:
    assert cli.UNITS == UNITS
