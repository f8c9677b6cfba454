import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charter.training.activations import Windows
from charter.training.losses import annealed_cummax
from charter.training.probe import fit_probe
from charter.training.recipe import Loss, Objective, Recipe

LENGTHS = st.lists(st.integers(1, 12), min_size=2, max_size=5)


def by_hand(recipe: Recipe, z: list[np.ndarray], y: np.ndarray, omega: float) -> float:
    """An exchange at a time, on probabilities: smooth, leave out what is before the first whole window, weigh, sum."""
    total = 0.0
    for own, label in zip(z, y, strict=True):
        m, t = recipe.window, len(own)
        if recipe.smoothing == "mean":
            smooth = [own[max(0, s + 1 - m) : s + 1].mean() for s in range(t)]
        else:
            ages = [((m - 1) / m) ** np.arange(s, -1, -1) for s in range(t)]
            smooth = [float(a @ own[: s + 1] / a.sum()) for s, a in enumerate(ages)]
        counted = np.array(smooth[m - 1 :] if t >= m else smooth[-1:])
        p = 1 / (1 + np.exp(-counted))
        p = (1 - omega) * p + omega * np.maximum.accumulate(p)
        loss = -np.log(p if label else 1 - p)
        weights = np.exp(counted) / np.exp(counted).sum() if recipe.loss == "softmax" else np.full(len(loss), 1 / len(loss))
        total += float(weights @ loss)
    return total / len(y)


@given(
    lengths=LENGTHS,
    seed=st.integers(0, 99),
    loss=st.sampled_from(["softmax", "bce", "cummax", "annealed"]),
    window=st.sampled_from([1, 2, 5, 16]),
    smoothing=st.sampled_from(["mean", "ema"]),
    omega=st.floats(0, 1),
)
def test_every_recipe_is_its_formula(lengths: list[int], seed: int, loss: Loss, window: int, smoothing: str, omega: float) -> None:
    recipe = Recipe(loss, window, smoothing)  # type: ignore[arg-type]
    omega = omega if loss == "annealed" else recipe.stages[0]
    rng = np.random.default_rng(seed)
    z = [rng.normal(0, 2, n) for n in lengths]
    y = rng.integers(0, 2, len(lengths)).astype(np.float32)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    found = Objective(recipe, y[:, None], owner)(torch.tensor(np.concatenate(z), dtype=torch.float32)[:, None], omega)
    assert found.item() == pytest.approx(by_hand(recipe, z, y, omega), rel=1e-3, abs=1e-5)


def test_an_annealed_fit_goes_from_every_token_to_the_running_maximum() -> None:
    assert Recipe("annealed").stages[0] == Recipe("bce").stages[0] == 0.0
    assert Recipe("annealed").stages[-1] == Recipe("cummax").stages[0] == 1.0


def spiked(n: int = 240, inputs: int = 8) -> tuple[Windows, np.ndarray]:
    """Exchanges of up to 30 tokens; in the restricted ones a few, somewhere, point along the first input."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(6, 30, n)
    owner = np.repeat(np.arange(n), lengths)
    labels = (np.arange(n) % 2).astype(np.float32)[:, None]
    store = rng.normal(size=(len(owner), inputs))
    for row in np.flatnonzero(labels[:, 0]):
        first = rng.integers(0, lengths[row] - 4)
        store[np.flatnonzero(owner == row)[first : first + 4], 0] += 6
    return Windows(store.astype(np.float16), np.arange(len(owner)), owner), labels


@pytest.mark.parametrize(
    "recipe", [Recipe("softmax"), Recipe("cummax"), Recipe("annealed"), Recipe("softmax", 4), Recipe("softmax", 4, "ema")]
)
def test_what_looks_at_the_loudest_token_finds_a_spike_better_than_plain_bce(recipe: Recipe) -> None:
    windows, labels = spiked()

    def spread(recipe: Recipe) -> float:
        weights, bias = fit_probe(windows, labels, 1.0, recipe=recipe)
        z = np.asarray(windows.store, np.float32) @ weights[0] + bias[0]
        loudest = np.array([z[windows.owner == n].max() for n in range(len(labels))])
        flagged = loudest > 0
        return float(np.mean(flagged == (labels[:, 0] > 0.5)))

    assert spread(recipe) > 0.85
    assert spread(recipe) > spread(Recipe("bce"))


def test_a_fit_ends_where_the_gradient_of_its_own_loss_is_nothing() -> None:
    """Against torch's own optimiser on the same loss: no step of it improves what L-BFGS found."""
    windows, labels = spiked(60, 3)
    recipe, strength = Recipe("bce", 4), 1.0
    weights, bias = fit_probe(windows, labels, strength, steps=500, recipe=recipe)
    x = torch.tensor(np.asarray(windows.store, np.float32))
    mean, scale = x.mean(0), x.std(0, correction=0) + 1e-3
    w = (torch.tensor(weights) * scale).double().requires_grad_()
    b = (torch.tensor(bias) + torch.tensor(weights) @ mean).double().requires_grad_()
    objective = Objective(recipe, labels, windows.owner)
    smoothed = objective.smooth(((x - mean) / scale).double() @ w.T + b)
    y = torch.tensor(labels, dtype=torch.float64)
    total = annealed_cummax(smoothed, y, objective._counted, 0.0) + (w**2).sum() / (2 * strength * len(labels))
    slopes = torch.autograd.grad(total, (w, b))
    assert max(slope.abs().max().item() for slope in slopes) < 2e-3


def test_without_standardisation_a_large_unit_is_cheap_and_a_small_one_dear() -> None:
    windows, labels = spiked(120, 4)
    windows = Windows((np.asarray(windows.store, np.float32) * [0.01, 1, 1, 100]).astype(np.float16), windows.rows, windows.owner)
    with_it, without = (fit_probe(windows, labels, 1e-2, recipe=Recipe(standardise=s))[0][0] for s in (True, False))
    assert abs(with_it[0] * 0.01) > 10 * abs(without[0] * 0.01)
