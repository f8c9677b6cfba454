"""The linear probe of Constitutional Classifiers++ (arXiv 2601.04603): z = W psi + b on the concatenated layers of a frozen backbone.

Trained on means over a window of M tokens, served as an exponential moving average with decay (M - 1) / M, which needs no
window in memory. Standardisation is folded into W and b, so a guard holds nothing but a matrix and a vector a view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charter.records import View

WINDOW = 16
"""M of the paper: both extremes were worse there."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Weights for each view: float32 [heads, layers * width] and biases [heads]; head 0 is overall, then one a clause."""

    layers: tuple[int, ...]
    weights: dict[View, NDArray[np.float32]]
    biases: dict[View, NDArray[np.float32]]

    def logits(self, states: Tensor, view: View) -> NDArray[np.float32]:
        """Raw logits of each token: [tokens, layers, width] to [tokens, heads]."""
        flat: NDArray[np.float32] = states.reshape(states.shape[0], -1).numpy()
        out: NDArray[np.float32] = flat @ self.weights[view].T + self.biases[view]
        return out

    def turn(self, view: View) -> ProbeTurn:
        """The state for a new turn."""
        return ProbeTurn(self, view)

    @property
    def flops_per_token(self) -> float:
        """2 FLOPs a weight."""
        return 2.0 * next(iter(self.weights.values())).size


class ProbeTurn:
    """The probe's average over one turn."""

    def __init__(self, probe: Probe, view: View) -> None:
        self._probe, self._view, self._average = probe, view, MovingAverage()

    def push(self, states: Tensor) -> NDArray[np.float32]:
        """States [tokens, layers, width] of the turn's next tokens to logits [tokens, heads]."""
        return self._average.push(self._probe.logits(states, self._view))


class MovingAverage:
    """The mean of a turn's logits so far, older tokens weighing (M - 1) / M less with each new one."""

    def __init__(self, window: int = WINDOW) -> None:
        self._decay = (window - 1) / window
        self._sum: NDArray[np.float32] | float = 0.0
        self._weight = 0.0

    def push(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw logits of new tokens in, averages after each of them out: [tokens, heads] both."""
        out = np.empty_like(z)
        for number, row in enumerate(z):
            self._sum = self._decay * self._sum + row
            self._weight = self._decay * self._weight + 1.0
            out[number] = self._sum / self._weight
        return out
