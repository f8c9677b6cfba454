"""Fit the probe's heads on window means by L-BFGS.

Inputs are standardised for each hidden unit, since a few units of the residual stream are a thousand times larger than the rest;
the standardisation is then folded into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from charter.errors import DataError
from charter.training.activations import Windows
from charter.training.recipe import Objective, Recipe

DEFAULT = Recipe()
CHUNK = 2_048
"""Windows in one chunk."""
MEMORY = 3 << 29
"""Bytes of inputs that are kept in memory, 1.5 GiB; beyond it each pass reads the disk, so memory does not grow with the data."""


def fit_probe(
    windows: Windows,
    labels: NDArray[np.float32],
    strength: float,
    steps: int = 60,
    columns: slice | NDArray[np.int64] = slice(None),
    progress: Callable[[int], None] = lambda _: None,
    recipe: Recipe = DEFAULT,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights float32 [heads, inputs] and biases [heads] for raw, unstandardised inputs.

    Args:
        windows: window means, or single tokens (`training.tokens`).
        labels: [exchanges, heads], 0 or 1.
        strength: C; the penalty is |w|^2 / (2 C n) in standardised units, n exchanges.
        steps: of L-BFGS, shared among the stages of the recipe.
        columns: the inputs to use, where only some layers are.
    """
    from scipy.optimize import minimize

    inputs = _Inputs(windows, columns, recipe.standardise)
    n, heads = labels.shape
    objective = Objective(recipe, labels, windows.owner)
    parameters = np.zeros((heads, len(inputs.mean) + 1))
    parameters[:, -1] = np.log((labels.sum(0) + 1) / (n - labels.sum(0) + 1))
    options = {"maxiter": -(-steps // len(recipe.stages)), "maxcor": 10}
    for omega in recipe.stages:

        def loss(flat: NDArray[np.float64], omega: float = omega) -> tuple[float, NDArray[np.float64]]:
            return _penalised(flat, inputs, objective, omega, heads, strength * n)

        fitted = minimize(loss, parameters.ravel(), jac=True, method="L-BFGS-B", callback=lambda _: progress(1), options=options)
        parameters = fitted.x.reshape(heads, -1)
    weights = parameters[:, :-1] / inputs.scale
    return weights.astype(np.float32), (parameters[:, -1] - weights @ inputs.mean).astype(np.float32)


def _penalised(
    flat: NDArray[np.float64], inputs: _Inputs, objective: Objective, omega: float, heads: int, penalty: float
) -> tuple[float, NDArray[np.float64]]:
    """Loss plus |w|^2 / (2 penalty) of parameters [heads, inputs + bias], flattened, and the gradient."""
    parameters = flat.reshape(heads, -1).astype(np.float32)
    w, b = parameters[:, :-1], parameters[:, -1]
    z = torch.from_numpy(np.concatenate([x @ w.T + b for _, x in inputs])).requires_grad_()
    value = objective(z, omega)
    if not torch.isfinite(value):
        bad = int((~torch.isfinite(z).all(1)).sum())
        raise DataError(
            f"probe: the loss is not finite ({bad:,} of {len(z):,} windows have logits that are no numbers); the backbone's states may be too "
            "large for float16: choose other --layers, or another backbone"
        )
    (slope,) = torch.autograd.grad(value, z)
    dz = slope.numpy()
    gradient = np.zeros_like(parameters)
    for at, x in inputs:
        gradient[:, :-1] += dz[at].T @ x
    gradient[:, -1] = dz.sum(0)
    gradient[:, :-1] += w / penalty
    return value.item() + float(np.sum(w.astype(np.float64) ** 2)) / (2 * penalty), gradient.astype(np.float64).ravel()


def moments(windows: Windows, columns: slice | NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each input over all windows, float32 [inputs]; a little is added to the latter."""
    total: NDArray[np.float64] | float = 0.0
    squares: NDArray[np.float64] | float = 0.0
    for _, x in _chunks(windows, columns):
        total = total + x.sum(0, dtype=np.float64)
        squares = squares + np.square(x, dtype=np.float64).sum(0)
    mean = np.asarray(total) / len(windows.owner)
    variance = np.maximum(np.asarray(squares) / len(windows.owner) - mean**2, 0.0)
    return mean.astype(np.float32), (np.sqrt(variance) + 1e-3).astype(np.float32)


def loudest(
    windows: Windows, n: int, weights: NDArray[np.float32], bias: NDArray[np.float32], columns: slice | NDArray[np.int64]
) -> NDArray[np.float32]:
    """Highest logit of each exchange over its windows: [n, heads]. A quick stand-in for the streamed running maximum."""
    out = np.full((n, len(bias)), -np.inf, np.float32)
    for at, x in _chunks(windows, columns):
        np.maximum.at(out, windows.owner[at], x @ weights.T + bias)
    return out


class _Inputs:
    """Standardised inputs, chunk by chunk: kept in memory where they fit, else read again from the disk in each pass."""

    def __init__(self, windows: Windows, columns: slice | NDArray[np.int64], standardise: bool) -> None:
        self._windows, self._columns = windows, columns
        self.mean, self.scale = moments(windows, columns)
        if not standardise:
            self.mean, self.scale = np.zeros_like(self.mean), np.ones_like(self.scale)
        fits = 4 * len(windows.owner) * len(self.mean) <= MEMORY
        self._kept = list(self._read()) if fits else None

    def __iter__(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        return iter(self._kept) if self._kept is not None else self._read()

    def _read(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        for at, x in _chunks(self._windows, self._columns):
            x -= self.mean
            x /= self.scale
            yield at, x


def _chunks(windows: Windows, columns: slice | NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for start in range(0, len(windows.owner), CHUNK):
        at = slice(start, start + CHUNK)
        yield at, windows.take(at, columns)
