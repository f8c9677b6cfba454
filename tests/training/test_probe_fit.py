import numpy as np
import pytest
from numpy.typing import NDArray

from charter.training.activations import Windows
from charter.training.probe import fit_probe, loudest


def planted(n: int = 300, inputs: int = 12, seed: int = 0) -> tuple[Windows, NDArray[np.float32]]:
    """Exchanges of one to four windows; restricted ones have one window that points along the first input, badly scaled."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, n)
    owner = np.repeat(np.arange(n), counts)
    store = rng.normal(size=(len(owner), inputs))
    labels = rng.integers(0, 2, (n, 1)).astype(np.float32)
    for row in np.flatnonzero(labels[:, 0]):
        store[rng.choice(np.flatnonzero(owner == row)), 0] += 5
    store = store * np.array([200.0] + [1.0] * (inputs - 1)) + 40
    return Windows(store.astype(np.float16), np.arange(len(owner)), owner), labels


def test_the_fit_finds_the_planted_direction_whatever_its_scale() -> None:
    windows, labels = planted()
    weights, bias = fit_probe(windows, labels, strength=1.0)
    found = loudest(windows, len(labels), weights, bias, slice(None))[:, 0] > 0
    assert np.mean(found == (labels[:, 0] > 0.5)) > 0.95


def test_a_stronger_penalty_gives_smaller_weights() -> None:
    windows, labels = planted()
    sizes = [float(np.linalg.norm(fit_probe(windows, labels, strength=c)[0] * 200)) for c in (1e-4, 1e-2, 1.0)]
    assert sizes == sorted(sizes)


def test_the_same_data_give_the_same_weights() -> None:
    windows, labels = planted()
    first, second = (fit_probe(windows, labels, strength=0.1) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


def test_only_the_columns_asked_for_are_used() -> None:
    windows, labels = planted()
    weights, _ = fit_probe(windows, labels, strength=1.0, columns=np.array([0, 3]))
    assert weights.shape == (1, 2)
    assert abs(weights[0, 0]) * 200 > abs(weights[0, 1])


def test_loudest_is_the_maximum_over_an_exchanges_windows() -> None:
    windows, labels = planted(n=20)
    weights = np.random.default_rng(1).normal(size=(2, 12)).astype(np.float32)
    bias = np.array([0.5, -0.5], np.float32)
    expected = [(np.asarray(windows.store[windows.owner == n], np.float32) @ weights.T + bias).max(0) for n in range(len(labels))]
    assert loudest(windows, len(labels), weights, bias, slice(None)) == pytest.approx(np.array(expected), rel=1e-4)
