"""The probe of Constitutional Classifiers++ (arXiv 2601.04603), z = W psi + b on the concatenated layers psi of a frozen backbone,
and beside it a hidden layer that reads the same activations:

    z = W psi + b + V gelu(U psi + c)

Trained on means over a window of M tokens, served on an exponential moving average with decay (M - 1) / M, which needs no
window in memory; both are settings (`Averaging`). Standardisation is folded into the weights, so a guard holds nothing but matrices and vectors. Without the
hidden layer it is the paper's; what the layer adds is measured in docs/decisions/009.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charter.errors import DataError
from charter.models.ensemble import Ensemble, Members, mean_logit
from charter.records import View

WINDOW = 16
"""M of the paper: both extremes were worse there."""


@dataclass(frozen=True, slots=True)
class Averaging:
    """Over which tokens of a turn a probe's logits are averaged."""

    window: int = WINDOW
    """M in training: the mean of the last M tokens. Until M are read, serving draws a logit towards the prior."""
    ema: int = WINDOW
    """N in serving: an exponential moving average with decay (N - 1) / N. 0: the mean of the last M tokens, as in training."""

    def start(self) -> MovingAverage | WindowMean:
        """The average over a new turn."""
        return MovingAverage(self.ema) if self.ema else WindowMean(self.window)


PAPERS = Averaging()
"""The paper's."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """The hidden layer of one view: `inner` U [units, layers * width], `bias` c [units], `outer` V [heads, units]; float32."""

    inner: NDArray[np.float32]
    bias: NDArray[np.float32]
    outer: NDArray[np.float32]

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the layer adds: [tokens, layers * width] to [tokens, heads]."""
        return self.above(self.below(torch.from_numpy(inputs)))

    def below(self, inputs: Tensor) -> NDArray[np.float32]:
        """U psi, [tokens, units]: by torch, which has all cores."""
        out: NDArray[np.float32] = torch.nn.functional.linear(inputs, torch.from_numpy(self.inner)).numpy()
        return out

    def above(self, units: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rest of what the layer adds: [tokens, units] to [tokens, heads]."""
        out: NDArray[np.float32] = torch.nn.functional.gelu(torch.from_numpy(units + self.bias)).numpy() @ self.outer.T
        return out

    def rounded(self) -> Hidden:
        """The same as it will be stored: float16."""
        inner, outer = (part.astype(np.float16).astype(np.float32) for part in (self.inner, self.outer))
        return Hidden(inner, self.bias, outer)


@dataclass(frozen=True, slots=True)
class Probe:
    """Weights for each view: float32 [heads, layers * width] and biases [heads]; head 0 is overall, then one a clause."""

    layers: tuple[int, ...]
    weights: dict[View, NDArray[np.float32]]
    biases: dict[View, NDArray[np.float32]]
    hidden: dict[View, Hidden] = field(default_factory=dict)
    """By view; empty for a linear probe."""
    averaging: Averaging = PAPERS
    ensemble: dict[View, Ensemble] = field(default_factory=dict)
    """By view: linear probes that score together in place of the one; `weights` and `biases` are then the mean of theirs."""

    def turn(self, view: View) -> ProbeTurn:
        """The state for a new turn."""
        members = self.ensemble[view].serving if view in self.ensemble else None
        return ProbeTurn(members or _single(self.weights[view], self.biases[view]), self.hidden.get(view), self.averaging)

    def held_out(self) -> Probe:
        """The same with the members that were kept apart in place of those that serve.

        Raises:
            DataError: none were.
        """
        if not self.ensemble or not all(own.held_out.seeds for own in self.ensemble.values()):
            raise DataError("the guard has no held-out members; train one with `charter train --ensemble 7 --held-out 2`")
        apart = {view: Ensemble(own.held_out, own.serving) for view, own in self.ensemble.items()}
        return replace(self, ensemble=apart)

    @property
    def flops_per_token(self) -> float:
        """2 FLOPs a weight, of one view."""
        first = next(iter(self.weights))
        hidden = self.hidden.get(first)
        linear = self.ensemble[first].serving.weights if first in self.ensemble else self.weights[first]
        return 2.0 * (linear.size + (hidden.inner.size + hidden.outer.size if hidden else 0))


class ProbeTurn:
    """The running averages over one turn: of products, since W mean(psi) = mean(W psi) and the latter is smaller."""

    def __init__(self, members: Members, hidden: Hidden | None, averaging: Averaging) -> None:
        self._members, self._hidden = members, hidden
        self._logits, self._units = averaging.start(), averaging.start()

    def push(self, states: Tensor) -> NDArray[np.float32]:
        """Hidden states of new tokens in, [tokens, layers, width]; logits after each of them out, [tokens, heads]."""
        z = self.members(states)
        return z[0] if len(z) == 1 else mean_logit(z)

    def members(self, states: Tensor) -> NDArray[np.float32]:
        """The same of each member by itself: [members, tokens, heads]; of an ordinary probe there is one."""
        flat = states.flatten(1)
        raw = self._members.logits(flat.numpy())  # [members, tokens, heads]
        members, tokens, heads = raw.shape
        z = self._logits.push(raw.transpose(1, 0, 2).reshape(tokens, members * heads)).reshape(tokens, members, heads).transpose(1, 0, 2)
        return z if self._hidden is None else z + self._hidden.above(self._units.push(self._hidden.below(flat)))


def _single(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Members:
    return Members(weight[None], bias[None], (0,))


class MovingAverage:
    """The mean of a turn's vectors so far, older tokens weighing (M - 1) / M less with each new one."""

    def __init__(self, window: int = WINDOW) -> None:
        self._decay = (window - 1) / window
        self._sum: NDArray[np.float32] | float = 0.0
        self._weight = 0.0

    def push(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of new tokens in, averages after each of them out: [tokens, any] both."""
        out = np.empty_like(z)
        for number, row in enumerate(z):
            self._sum = self._decay * self._sum + row
            self._weight = self._decay * self._weight + 1.0
            out[number] = self._sum / self._weight
        return out


class WindowMean:
    """The mean of a turn's last vectors: of all there are, until the window is full."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._last: NDArray[np.float32] | None = None

    def push(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of new tokens in, means after each of them out: [tokens, any] both."""
        rows = z if self._last is None else np.concatenate([self._last, z])
        before = len(rows) - len(z)
        out = np.empty_like(z)
        for number in range(len(z)):
            end = before + number + 1
            out[number] = rows[max(0, end - self._window) : end].mean(0)
        self._last = rows[max(0, len(rows) - self._window + 1) :].copy()
        return out
