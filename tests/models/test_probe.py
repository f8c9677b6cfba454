"""The probe: one matrix product on concatenated layers, averaged over the turn so far."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from charter.models.probe import WINDOW, Hidden, MovingAverage, Probe

Z = arrays(np.float32, st.tuples(st.integers(1, 60), st.just(2)), elements=st.floats(-50, 50, width=32))


@given(Z, st.integers(2, 40))
def test_the_moving_average_is_its_closed_form(z: np.ndarray, window: int) -> None:
    """sum of d^(t-s) z_s over sum of d^(t-s), s up to t, with d = (M - 1) / M."""
    decay = (window - 1) / window
    got = MovingAverage(window).push(z)
    for t in range(len(z)):
        weights = decay ** np.arange(t, -1, -1)
        np.testing.assert_allclose(got[t], weights @ z[: t + 1].astype(float) / weights.sum(), atol=1e-3)


@given(Z, st.data())
def test_pushing_in_steps_changes_no_average(z: np.ndarray, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(z)), max_size=6)))
    average = MovingAverage()
    steps = [average.push(z[a:b]) for a, b in zip([0, *cuts], [*cuts, len(z)], strict=True)]
    np.testing.assert_array_equal(np.concatenate(steps), MovingAverage().push(z))


def test_a_constant_stays_itself_and_a_jump_is_followed_within_some_windows() -> None:
    z = np.array([[1.0]] * 5 + [[3.0]] * (6 * WINDOW), np.float32)
    got = MovingAverage().push(z)[:, 0]
    np.testing.assert_allclose(got[:5], 1.0, rtol=1e-6)
    assert np.all(np.diff(got[5:]) > -1e-6)
    assert got[-1] == pytest.approx(3.0, abs=0.01)


def test_logits_are_the_product_with_the_layers_side_by_side() -> None:
    rng = np.random.default_rng(0)
    states = torch.from_numpy(rng.normal(size=(1, 2, 4)).astype(np.float32))
    weights, bias = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    probe = Probe((2, 5), {"prompt": weights, "exchange": 2 * weights}, {"prompt": bias, "exchange": bias})
    expected = [[sum(weights[h, la * 4 + w] * float(states[0, la, w]) for la in range(2) for w in range(4)) + bias[h] for h in range(3)]]
    np.testing.assert_allclose(probe.turn("prompt").push(states), expected, rtol=1e-4)
    np.testing.assert_allclose(probe.turn("exchange").push(states) - bias, 2 * (np.array(expected) - bias), rtol=1e-4, atol=1e-5)
    assert probe.flops_per_token == 2 * 3 * 8


def hidden_probe(rng: np.random.Generator) -> Probe:
    weights, bias = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    layer = Hidden(*(rng.normal(size=shape).astype(np.float32) for shape in ((5, 8), (5,), (3, 5))))
    return Probe((2, 5), {"prompt": weights}, {"prompt": bias}, {"prompt": layer})


def test_the_hidden_layer_reads_the_average_of_the_states() -> None:
    """By its formula, with the exact Gaussian error function: z = W psi + b + V gelu(U psi + c), psi averaged."""
    rng = np.random.default_rng(1)
    probe = hidden_probe(rng)
    states = rng.normal(size=(40, 2, 4)).astype(np.float32)
    got = probe.turn("prompt").push(torch.from_numpy(states))
    layer, decay = probe.hidden["prompt"], (WINDOW - 1) / WINDOW
    for t in range(len(states)):
        share = decay ** np.arange(t, -1, -1)
        psi = (share @ states[: t + 1].reshape(t + 1, -1).astype(float)) / share.sum()
        units = layer.inner @ psi + layer.bias
        units = units * norm.cdf(units)
        np.testing.assert_allclose(got[t], probe.weights["prompt"] @ psi + probe.biases["prompt"] + layer.outer @ units, atol=1e-3)
    assert probe.flops_per_token == 2 * (3 * 8 + 5 * 8 + 3 * 5)


@given(st.lists(st.integers(0, 30), max_size=5))
def test_steps_change_no_logit(cuts: list[int]) -> None:
    rng = np.random.default_rng(2)
    probe = hidden_probe(rng)
    states = torch.from_numpy(rng.normal(size=(30, 2, 4)).astype(np.float32))
    whole, turn = probe.turn("prompt").push(states), probe.turn("prompt")
    edges = [0, *sorted(cuts), 30]
    steps = [turn.push(states[a:b]) for a, b in itertools.pairwise(edges)]
    np.testing.assert_allclose(np.concatenate(steps), whole, atol=1e-4)
