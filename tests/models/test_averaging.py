"""Window and moving average as settings: each is its closed form, and none changes that streamed scores are batch scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter1d

from charter.guard import record
from charter.models.cascade import Cascade
from charter.models.probe import WINDOW, Averaging, Probe, WindowMean
from charter.models.stage import PRIOR
from charter.records import Exchange, Turn
from charter.training.losses import smoothing_matrix

SETTINGS = st.builds(Averaging, st.integers(1, 40), st.integers(0, 40))
PROMPT = (Turn("user", "How do I open a door whose key I lost?"),)


def test_the_record_knows_the_papers_window() -> None:
    assert record.WINDOW == WINDOW
    assert Averaging() == Averaging(record.WINDOW, record.WINDOW)


@given(st.integers(1, 30), st.integers(1, 60), st.lists(st.integers(0, 60), max_size=6))
def test_the_windows_mean_is_scipys_under_any_cut(window: int, n: int, cuts: list[int]) -> None:
    z = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
    mean = WindowMean(window)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    got = np.concatenate([mean.push(z[a:b]) for a, b in zip(edges, edges[1:], strict=False)])
    full = uniform_filter1d(z.astype(float), window, axis=0, mode="constant", origin=(window - 1) // 2)
    np.testing.assert_allclose(got[window - 1 :], full[window - 1 :], atol=1e-5)
    np.testing.assert_allclose(got, smoothing_matrix("mean", window, n).numpy() @ z, atol=1e-5)


@given(SETTINGS, st.lists(st.integers(0, 30), max_size=5))
def test_a_probe_with_any_setting_is_its_matrix_and_steps_change_nothing(own: Averaging, cuts: list[int]) -> None:
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(2, 6)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    probe = Probe((1, 2), {"prompt": weights}, {"prompt": bias}, averaging=own)
    states = torch.from_numpy(rng.normal(size=(30, 2, 3)).astype(np.float32))
    turn, edges = probe.turn("prompt"), [0, *sorted(cuts), 30]
    got = np.concatenate([turn.push(states[a:b]) for a, b in zip(edges, edges[1:], strict=False)])
    matrix = smoothing_matrix("ema" if own.ema else "mean", own.ema or own.window, 30).numpy()
    np.testing.assert_allclose(got, matrix @ (states.flatten(1).numpy() @ weights.T + bias), atol=1e-4)


@settings(max_examples=15)
@given(data=st.data(), own=SETTINGS)
def test_streamed_scores_equal_batch_scores_under_every_setting(
    data: st.DataObject, own: Averaging, texts: Any, chunked: Callable[[st.DataObject, str], list[str]], random_cascade: Cascade
) -> None:
    cascade = replace(random_cascade, probe=replace(random_cascade.probe, averaging=own))
    reply = data.draw(texts)
    (batch,) = cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", reply)))])
    session = cascade.open(PROMPT)
    scores = [score for piece in chunked(data, reply) for score in session.push(piece)] + session.flush()
    assert batch.reply is not None
    p, q = (1 / (1 + np.exp(-np.asarray(z, float))) for z in ([s.z for s in scores], batch.reply))
    np.testing.assert_allclose(p, q, atol=1e-3)


@pytest.mark.parametrize("window", [1, 4, 30])
def test_the_prior_holds_until_the_window_is_full(window: int, random_cascade: Cascade) -> None:
    """Constant states and no screen: what is left is the share that a token's logit has."""
    probe = replace(random_cascade.probe, averaging=Averaging(window, 0))
    flat = {view: np.zeros_like(w) for view, w in probe.weights.items()}
    probe = replace(probe, weights=flat, biases={view: np.full(3, 6, np.float32) for view in flat})
    cascade = replace(random_cascade, probe=probe, mix=dict.fromkeys(flat, 1.0))
    (scored,) = cascade.batch([Exchange("x", (Turn("user", "1 2 3 4 5 6 7 8 9 10 11 12"),))])
    share = np.minimum(1.0, np.arange(1, len(scored.prompt)) / window)
    np.testing.assert_allclose(scored.prompt[:-1, 0], PRIOR + share * (6 - PRIOR), atol=1e-4)
    assert scored.prompt[-1, 0] == pytest.approx(6)
