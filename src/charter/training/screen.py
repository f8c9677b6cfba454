"""Fit the screen: one logistic regression a head on the sparse state at the end of each turn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from charter.models.screen import BUCKETS, turn_features
from charter.models.segments import cut
from charter.records import Exchange, View

STRENGTH = 1.0
"""Inverse L2 penalty of scikit-learn's LogisticRegression; chosen on the dev split of the general constitution among 0.3, 1, 3."""


def fit_screen(exchanges: Sequence[Exchange], labels: NDArray[np.float32], view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights float32 [buckets, heads] and biases [heads].

    Args:
        labels: [exchanges, heads], 0 or 1. A head without positives stays at zero with a low bias.
    """
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    rows = [turn_features(cut(_text(exchange, view))) for exchange in exchanges]
    pointers = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.fromiter((bucket for row in rows for bucket in row), np.int64, pointers[-1])
    values = np.fromiter((value for row in rows for value in row.values()), np.float32, pointers[-1])
    inputs = csr_matrix((values, columns, pointers), shape=(len(rows), BUCKETS))
    heads = labels.shape[1]
    weights, biases = np.zeros((BUCKETS, heads), np.float32), np.full(heads, -8.0, np.float32)
    for head in range(heads):
        target = labels[:, head] > 0.5
        if not target.any() or target.all():
            continue
        model = LogisticRegression(C=STRENGTH, solver="liblinear", max_iter=200, random_state=0)
        model.fit(inputs, target)
        weights[:, head], biases[head] = model.coef_[0], model.intercept_[0]
    return weights, biases


def _text(exchange: Exchange, view: View) -> str:
    """The turn whose end carries the label: the reply, or the last of the prompt's turns."""
    return exchange.reply or "" if view != "prompt" else exchange.prompt[-1].content
