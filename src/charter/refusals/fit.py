"""Fit the classifier of replies and write its weights: `python -m charter.refusals.fit`. A quarter of a minute on one core, always the same bytes.

`--replies FILE` adds replies of your own and `--reasons FILE` replaces the reasons (`docs/refusals.md`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.refusals.classify import DECLINES, HELPS, SCHEMA, Classifier
from charter.refusals.features import WIDTH, features
from charter.refusals.replies import CANNOT, SHOULD_NOT, Reply, authored, composed, reasons, recorded
from charter.statistics import Interval, clopper_pearson

STRENGTH = 1.0
"""Inverse L2 penalty; .3 to 10 differ by less than .01 of F1 on the development half of xstest_completions."""
COMPOSED = 2_000
TIMES = 3
"""How often a reply that was written for this counts beside one recorded with a constitution, of which there are eight times as many."""
FEWEST = 5
"""Replies of a reason below which its head stays silent."""


def fit(replies: Sequence[Reply], known: dict[str, dict[str, str]], strength: float = STRENGTH) -> Classifier:
    """Logistic regressions, one a head: who declines on all replies, the others on those that decline.

    Args:
        known: reasons by parent, as `replies.reasons` gives them.
    """
    parents = {reason: parent for parent, named in known.items() for reason in named}
    heads = (DECLINES, HELPS, SHOULD_NOT, CANNOT, *parents)
    rows = _matrix([reply.text for reply in replies])
    declines = np.array([reply.did != "complied" for reply in replies])
    told = declines & np.array([reply.why is not None for reply in replies])
    weights, biases = np.zeros((WIDTH, len(heads)), np.float32), np.full(len(heads), -8.0, np.float32)
    for column, head in enumerate(heads):
        if head == DECLINES:
            among, target = np.ones(len(replies), bool), declines
        elif head == HELPS:
            among, target = declines, np.array([reply.did == "partly" for reply in replies])
        else:
            among, target = told, np.array([reply.why is not None and head in reply.why for reply in replies])
        if FEWEST <= target[among].sum() < among.sum():
            weights[:, column], biases[column] = _logistic(rows[among], target[among], strength, balanced=head not in (DECLINES, HELPS))
    return Classifier(weights.astype(np.float16).astype(np.float32), biases, heads, parents)


def training(extra: Sequence[Reply] = ()) -> list[Reply]:
    """All that the shipped classifier learns from, and `extra`."""
    written = [*authored(), *extra]
    rows = [*(written * TIMES), *recorded()]
    return rows + composed(rows, COMPOSED)


def save(classifier: Classifier, path: Path) -> None:
    """Write the weights as float16 safetensors, to the side and then renamed."""
    from safetensors.numpy import save as packed

    told = {"schema": SCHEMA, "heads": classifier.heads, "parents": classifier.parents, "data": fingerprint()}
    metadata = {"charter": json.dumps(told)}  # one entry: the order of several is not fixed
    tensors: dict[str, NDArray[Any]] = {"weights": classifier._weights.astype(np.float16), "biases": classifier._biases}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_bytes(packed(tensors, metadata))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def fingerprint() -> str:
    """SHA-256 of the data beside this file: tells whether shipped weights are older than what they were fitted on."""
    digest = hashlib.sha256()
    for name in ("parts.json", "phrases.txt", "reasons.json", "replies.jsonl"):
        digest.update((resources.files("charter.refusals") / "data" / name).read_bytes())
    return digest.hexdigest()


def held_out(known: dict[str, dict[str, str]], folds: int = 5, seed: int = 0) -> dict[str, Interval]:
    """How the written replies are judged by classifiers that never saw them: the right deed, the right parent, and each reason's recall.

    They come from one hand, so this flatters; it is all there is for reasons.
    """
    written = authored()
    places = np.random.default_rng(seed).permutation(len(written)) % folds
    hits: dict[str, list[bool]] = {}
    for fold in range(folds):
        rows = [*[r for r, place in zip(written, places, strict=True) if place != fold] * TIMES, *recorded()]
        classifier = fit(rows + composed(rows, COMPOSED), known)
        for reply in (r for r, place in zip(written, places, strict=True) if place == fold):
            found = classifier.judge(reply.text)
            hits.setdefault(f"deed:{reply.did}", []).append(found.did == reply.did)
            for parent in known:
                if reply.why and parent in reply.why:
                    hits.setdefault(f"parent:{parent}", []).append(found.parent == parent)
                    for reason in reply.why & known[parent].keys():
                        hits.setdefault(f"reason:{reason}", []).append(reason in found.why)
    return {name: clopper_pearson(sum(right), len(right)) for name, right in sorted(hits.items())}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m charter.refusals.fit", description="Fit the classifier of replies.")
    parser.add_argument("--replies", type=Path, help="more replies: JSONL of {reply, did, why}")
    parser.add_argument("--reasons", type=Path, help="reasons by parent, in place of data/reasons.json")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("data") / "weights.safetensors")
    parser.add_argument("--held-out", action="store_true", help="write nothing; tell how written replies are judged that were held out")
    given = parser.parse_args()
    known = reasons(given.reasons)
    if given.held_out:
        print(json.dumps({name: found.as_dict() for name, found in held_out(known).items()}, indent=2))  # noqa: T201
        return
    save(fit(training(authored(given.replies, known) if given.replies else ()), known), given.out)


def _logistic(rows: Any, target: NDArray[np.bool_], strength: float, balanced: bool) -> tuple[NDArray[np.float32], float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, solver="liblinear", class_weight="balanced" if balanced else None, max_iter=200, random_state=0)
    model.fit(rows, target)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def _matrix(texts: Sequence[str]) -> Any:
    """Sparse float64 [texts, WIDTH]."""
    from scipy.sparse import csr_matrix

    rows = [features(text) for text in texts]
    pointers = np.cumsum([0, *(len(row) for row in rows)])
    columns = np.fromiter((column for row in rows for column in row), np.int64, pointers[-1])
    values = np.fromiter((value for row in rows for value in row.values()), np.float64, pointers[-1])
    return csr_matrix((values, columns, pointers), shape=(len(rows), WIDTH))


if __name__ == "__main__":
    main()
