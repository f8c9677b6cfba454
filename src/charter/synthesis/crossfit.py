"""A second check of the labels that needs no teacher: would a scorer that never saw an item, nor its kin, give it its label?

The items are cut into folds by group. A logistic regression on hashed words and characters is fitted to the other folds and
gives each item the probability of its own label. Near misses across the line are hard for it, so disagreement alone drops
nothing that a person wrote: it drives the review, and weeds out only the grossest slips of a language model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.records import split_place
from charter.synthesis.items import Item, Key, Outcome, counterparts, home, key

FOLDS = 5
BITS = 18
"""2^18 columns of words and as many of characters."""
LONGEST = 2_000
"""Characters that are read, from the end: what is asked comes last."""
EPOCHS = 12
PENALTY = 0.5
"""L2 penalty, divided by the number of texts: of 0.1 to 3 about the best log-loss on 400 and on 12,000 texts alike."""
FEWEST = 200
"""Items below which the scorer knows too little to drop any."""
UNLIKELY = 0.05
"""Probability of its own label below which an item that a language model wrote is dropped."""
REASON = "the scorer disagrees"


@dataclass(frozen=True, slots=True)
class Second:
    """The scorer's opinion of an item."""

    probability: float
    """Of the item's own label, 0 to 1, from the folds that the item and its kin are not in."""
    nearest: str
    """The clause whose other items it is most like, apart from its own; empty where there is none."""


def crossfit(items: Sequence[Item], seed: int) -> dict[Key, Second]:
    """An opinion on each item; none on those for which the other folds hold a single label."""
    if not items:
        return {}
    features = _features([item.text[-LONGEST:] for item in items])
    labels = np.array([item.side == "restricted" for item in items])
    folds = np.array([int(split_place(f"fold:{seed}:{item.group}") * FOLDS) for item in items])
    chances = np.full(len(items), np.nan)
    for fold in range(FOLDS):
        out = folds == fold
        if out.any() and len(set(labels[~out])) == 2:
            chances[out] = _fit(features, labels, ~out, seed, out)
    own = np.where(labels, chances, 1 - chances)
    near = _nearest(features, items)
    return {key(i): Second(float(p), n) for i, p, n in zip(items, own, near, strict=True) if not np.isnan(p)}


def sift(items: Sequence[Item], opinions: Mapping[Key, Second]) -> Outcome:
    """The stage: drops what a language model wrote and the scorer finds all but impossible, given enough items to know."""
    outcome = Outcome([], Counter())
    for item in items:
        opinion = opinions.get(key(item))
        if opinion and opinion.probability < UNLIKELY and item.teacher.startswith("model:") and len(items) >= FEWEST:
            outcome.dropped[home(item), REASON] += 1
        else:
            outcome.kept.append(item)
    return outcome


def agreement(
    asked: Sequence[Item], agreed: Sequence[Item], items: Sequence[Item], opinions: Mapping[Key, Second], constitution: Constitution
) -> dict[str, dict[str, float | int | None]]:
    """By clause, and by slice of the pools: items, and the shares whose label the teacher and the scorer share.

    Args:
        asked: the items before the label stage.
        agreed: those after it.
        items: those that the scorer read.
        opinions: what it found.
        constitution: says which clauses have a counterpart to be told from.

    Returns:
        For each: `n`, the items read; `teacher`, null where no teacher was asked, as of recorded items, clauses without a
        counterpart and the clause's own examples; `crossfit`, null where no fold could be fitted.
    """
    before, after = _checked(asked, constitution), _checked(agreed, constitution)
    sides: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        opinion = opinions.get(key(item))
        if opinion:
            sides[home(item)].append(opinion.probability > 0.5)
    read = Counter(home(item) for item in items)
    return {
        name: {
            "n": read[name],
            "teacher": _rate(after[name], before[name]),
            "crossfit": _rate(sum(sides[name]), len(sides[name])),
        }
        for name in sorted({*read, *before})
    }


def _checked(items: Sequence[Item], constitution: Constitution) -> Counter[str]:
    """Items by clause on which the label stage wants an opinion."""
    opposite = counterparts(constitution)
    return Counter(item.clause for item in items if item.clause in opposite and item.teacher.startswith("model:"))


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _features(texts: Sequence[str]) -> Any:
    """A sparse row of unit length for each text: words and pairs of them, and characters within words."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    size = 2**BITS
    words = HashingVectorizer(ngram_range=(1, 2), n_features=size, dtype=np.float32, token_pattern=r"(?u)\b\w+\b")
    characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=size, dtype=np.float32)
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    return hstack([words.transform(clean), characters.transform(clean)], format="csr")


def _fit(features: Any, labels: NDArray[np.bool_], rows: NDArray[np.bool_], seed: int, out: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability of restricted for the rows `out`, of a scorer fitted to `rows`, in which both labels weigh the same."""
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(
        loss="log_loss", alpha=PENALTY / rows.sum(), max_iter=EPOCHS, tol=None, average=True, class_weight="balanced", random_state=seed
    )
    model.fit(features[rows], labels[rows])
    chances: NDArray[np.float64] = model.predict_proba(features[out])[:, 1]
    return chances


def _nearest(features: Any, items: Sequence[Item]) -> list[str]:
    """The clause, apart from the item's own, to whose mean row its own row has the highest cosine."""
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    clauses = sorted({item.clause for item in items if item.clause})
    if not clauses:
        return [""] * len(items)
    place = {clause: number for number, clause in enumerate(clauses)}
    members = [(place[item.clause], row) for row, item in enumerate(items) if item.clause]
    which = csr_matrix((np.ones(len(members), np.float32), tuple(zip(*members, strict=True))), (len(clauses), len(items)))
    alike = (features @ normalize(which @ features).T).toarray()
    for row, item in enumerate(items):
        if item.clause:
            alike[row, place[item.clause]] = -1
    best = alike.argmax(1)
    return [clauses[n] if alike[row, n] > -1 else "" for row, n in enumerate(best)]
