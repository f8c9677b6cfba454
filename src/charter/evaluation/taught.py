"""Ways to teach a clause on the same frozen states: by the rule's own words, by labelled requests, and which requests to label next.

All read one vector a request, the mean of the backbone's states over it, standardised on requests whose labels nobody looks at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Clause

Choice = Literal["random", "uncertain", "farthest"]
CHOICES: tuple[Choice, ...] = ("random", "uncertain", "farthest")
"""Which request is labelled next: any; the one whose probability is nearest to a half (Lewis and Gale 1994); the one farthest from all
that are labelled (Gonzalez 1985)."""
STRENGTH = 10.0
"""C of the logistic head on vectors of about unit length; fixed beforehand."""
_SENTENCE = re.compile(r"[^.;:]+")


def standardised(vectors: NDArray[np.floating], like: NDArray[np.floating]) -> NDArray[np.float64]:
    """Vectors [rows, inputs] less the mean of `like`, each input over its spread there, and all over sqrt(inputs)."""
    mean, spread = like.mean(0, dtype=np.float64), like.std(0, dtype=np.float64) + 1e-6
    return np.asarray((vectors - mean) / spread / np.sqrt(vectors.shape[1]))


def words(clause: Clause) -> list[str]:
    """What a rule says, a sentence or a part of one each: its title, its text and its few examples."""
    found = [part.strip() for part in _SENTENCE.findall(clause.text)]
    return [clause.title, *(part for part in found if part), *clause.examples]


def by_words(x: NDArray[np.float64], restricted: NDArray[np.float64], permitted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores [rows]: along the line from the words of what is permitted (the origin where there are none) to those of what is restricted."""
    origin = permitted.mean(0) if len(permitted) else np.zeros(x.shape[1])
    return np.asarray(x @ (restricted.mean(0) - origin))


def by_examples(x: NDArray[np.float64], known: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Logits [rows] of a logistic head fitted on labelled vectors. A side of which nothing is known yet is stood for by the origin,
    the mean of all requests."""
    from sklearn.linear_model import LogisticRegression

    if labels.all() or not labels.any():
        known, labels = np.vstack([known, np.zeros(known.shape[1])]), np.append(labels, not labels[0])
    model = LogisticRegression(C=STRENGTH, max_iter=200).fit(known, labels)
    return np.asarray(model.decision_function(x))


def order(x: NDArray[np.float64], labels: NDArray[np.bool_], n: int, how: Choice, seed: int) -> list[int]:
    """Numbers of `n` rows in the order in which they are labelled; the first is drawn. Labels are looked at once they are asked for."""
    rng = np.random.default_rng(seed)
    if how == "random":
        return [int(row) for row in rng.permutation(len(x))[:n]]
    picked = [int(rng.integers(len(x)))]
    nearest = np.full(len(x), np.inf)
    while len(picked) < n:
        nearest = np.minimum(nearest, ((x - x[picked[-1]]) ** 2).sum(1))
        unsure = -np.abs(by_examples(x, x[picked], labels[picked])) if how == "uncertain" else nearest
        unsure[picked] = -np.inf
        picked.append(int(np.argmax(unsure)))
    return picked


def together(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Two ways' scores of the same rows, each less its mean and over its spread, added. A score that is the same for all says nothing."""
    return np.asarray(sum((z - z.mean()) / (z.std() or 1.0) for z in (np.asarray(first, float), np.asarray(second, float))))


def pooled(windows: NDArray[np.floating], owner: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """The mean of each row's window means: [windows, inputs] to [n, inputs]."""
    total = np.zeros((n, windows.shape[1]))
    np.add.at(total, owner, windows)
    return total / np.bincount(owner, minlength=n)[:, None]


def ks(wanted: Sequence[int], n: int) -> list[int]:
    """The numbers of labels that a pool of `n` has room for."""
    return [k for k in wanted if k <= n]
