"""How the probe's logits become a loss: which loss, over which window, and what of the inputs is standardised.

The defaults are the paper's (arXiv 2601.04603). What each choice is worth at this scale stands in `docs/study.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charter.training.losses import Smoothing, annealed_cummax, smoothing_matrix, softmax_weighted

Loss = Literal["softmax", "bce", "cummax", "annealed"]
ANNEALING = (0.0, 0.25, 0.5, 0.75, 1.0)
"""omega of the stages of an annealed fit, each begun where the last one ended."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a fit of the probe may be told."""

    loss: Loss = "softmax"
    """softmax: the loudest windows carry the label. bce: all alike. cummax: the running maximum. annealed: from bce to cummax."""
    window: int = 1
    """Tokens over which logits are smoothed before the loss; 1 where the inputs are window means already."""
    smoothing: Smoothing = "mean"
    detach: bool = False
    """Whether the softmax weights are held fixed in the gradient."""
    standardise: bool = True
    """Whether the penalty is on weights of standardised inputs."""

    @property
    def stages(self) -> tuple[float, ...]:
        """omega of each stage of the fit."""
        return ANNEALING if self.loss == "annealed" else (1.0,) if self.loss == "cummax" else (0.0,)


class Objective:
    """The loss of one fit, a function of the logits of all tokens."""

    def __init__(self, recipe: Recipe, labels: NDArray[np.float32], owner: NDArray[np.int64]) -> None:
        """Prepare it.

        Args:
            labels: [exchanges, heads], 0 or 1.
            owner: int [tokens], the exchange of each token; those of an exchange stand together and in order.
        """
        self._recipe, self._labels, self._n = recipe, torch.from_numpy(labels), len(labels)
        starts = np.searchsorted(owner, np.arange(self._n))
        lengths = np.diff(np.append(starts, len(owner)))
        self._owner = torch.from_numpy(owner)
        self._place = torch.from_numpy(np.arange(len(owner)) - starts[owner])
        longest = int(lengths.max())
        self._mask = torch.arange(longest) < torch.from_numpy(lengths)[:, None]
        last = torch.arange(longest) == torch.from_numpy(lengths)[:, None] - 1
        self._counted = self._mask & ((torch.arange(longest) >= recipe.window - 1) | last)
        """Where a smoothed logit counts: from the first whole window on; a shorter text gives one, at its end."""
        self._smoothing = smoothing_matrix(recipe.smoothing, recipe.window, longest)
        self._kept = self._counted.nonzero()[:, 0]

    def __call__(self, z: Tensor, omega: float) -> Tensor:
        """The mean over exchanges, summed over heads, of logits [tokens, heads]; `omega` is the stage's."""
        recipe = self._recipe
        if recipe.loss == "softmax" and recipe.window == 1:
            return softmax_weighted(z, self._labels, self._owner, self._n, recipe.detach)
        smoothed = self.smooth(z)
        if recipe.loss == "softmax":
            return softmax_weighted(smoothed[self._counted], self._labels, self._kept, self._n, recipe.detach)
        return annealed_cummax(smoothed, self._labels, self._counted, omega)

    def smooth(self, z: Tensor) -> Tensor:
        """Smoothed logits, padded on the right: [tokens, heads] to [exchanges, longest, heads]."""
        padded = z.new_zeros(*self._mask.shape, z.shape[1]).index_put((self._owner, self._place), z)
        return padded if self._recipe.window == 1 else self._smoothing.to(z.dtype) @ padded
