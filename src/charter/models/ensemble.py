"""Several probes over the same hidden states: one score out of all, how far they disagree, and some that are kept apart.

The score is the log of the mean probability, ln (1/K sum_k sigmoid(z_k)): one member that is sure outweighs several that are not, and
unlike a mean of logits none can hold the others back. Members that are held out never score for the guard: an attack is judged by
those it could not have been fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charter.errors import DataError


@dataclass(frozen=True, slots=True)
class Members:
    """K probes: weights float32 [K, heads, inputs] and biases [K, heads], and the seeds that drew their data."""

    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.seeds) == len(self.weights) == len(self.biases):
            raise DataError("each member of an ensemble needs weights, a bias and a seed; train it again")

    def __deepcopy__(self, memo: object) -> Members:
        """Itself: nothing changes it, and open sessions are copied."""
        return self

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """[rows, inputs] to [K, rows, heads]."""
        return np.asarray(inputs @ self.weights.transpose(0, 2, 1) + self.biases[:, None], np.float32)


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Members that score, at least one, and members that are held out to judge attacks, perhaps none."""

    serving: Members
    held_out: Members

    def __post_init__(self) -> None:
        if not self.serving.seeds:
            raise DataError("an ensemble needs at least one member that scores; train it again")
        shared = set(self.serving.seeds) & set(self.held_out.seeds)
        if shared:
            raise DataError(f"the ensemble's member of seed {min(shared)} both serves and is held out; train it again")


def log_mean_probability(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """ln of the members' mean probability: logits [K, ...] to [...], at most 0. Finite for logits of any size."""
    return np.asarray(np.logaddexp.reduce(_log_sigmoid(z), axis=0) - np.log(len(z)))


def mean_logit(z: NDArray[np.floating]) -> NDArray[np.float32]:
    """The logit of the members' mean probability: logits [K, ...] to [...]. It ranks as `log_mean_probability` does, and has no upper end."""
    return np.asarray(log_mean_probability(z) - log_mean_probability(-np.asarray(z)), np.float32)


def disagreement(z: NDArray[np.floating]) -> NDArray[np.float64]:
    """Standard deviation of the members' probabilities: logits [K, ...] to [...], 0 to 0.5."""
    return np.asarray(np.exp(_log_sigmoid(z)).std(0))


def _log_sigmoid(z: NDArray[np.floating]) -> NDArray[np.float64]:
    return -np.logaddexp(0.0, -np.asarray(z, np.float64))
