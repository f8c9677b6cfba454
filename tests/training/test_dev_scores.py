"""The dev split's scores are what serving gives: running maxima of every head, for any mix, in the table's order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from charter.models.cascade import Cascade
from charter.records import Exchange, Turn, View
from charter.training.dev_scores import dev_scores, kept_peaks, peaks
from charter.training.table import Table

EXCHANGES = [
    Exchange("a", (Turn("user", "How do locks work, and what is in a potion of love? Tell me all of it."),)),
    Exchange("b", (Turn("user", "Hi"),)),
    Exchange("c", (Turn("user", "Write code."), Turn("assistant", "```\nx = [1, 2]\n```\nThat is all there is to it."))),
]


def table(view: View, exchanges: list[Exchange]) -> Table:
    labels = np.zeros((len(exchanges), 2), np.float32)
    labels[0] = 1
    slices = ["chat", "code", "chat"][: len(exchanges)]
    return Table(view, ("potions",), exchanges, labels, slices, [e.id for e in exchanges], frozenset(), len(exchanges))


@pytest.mark.parametrize(("view", "rows"), [("prompt", [0, 1]), ("exchange", [2])])
def test_peaks_are_the_highest_served_logits_of_every_head_and_mix(random_cascade: Cascade, view: View, rows: list[int]) -> None:
    exchanges = [EXCHANGES[n] for n in rows]
    mixes = (0.3, 1.0)
    found = peaks(random_cascade, table(view, exchanges), mixes, lambda *_: None)
    assert found.shape == (2, len(rows), 3)
    for mix, values in zip(mixes, found, strict=True):
        served = replace(random_cascade, mix=dict.fromkeys(("prompt", "exchange"), mix))
        for row, scored in zip(values, served.batch(exchanges), strict=True):
            logits = scored.logits(view)
            assert logits is not None
            np.testing.assert_allclose(row, logits.max(0), atol=1e-4)


def test_labels_go_to_the_heads_of_the_guard_and_slices_are_counted() -> None:
    found = dev_scores(table("prompt", EXCHANGES), np.zeros((3, 3), np.float32), ("locks", "potions"))
    assert found.labels.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert [found.names[n] for n in found.slice_of] == ["chat", "code", "chat"]
    assert found.slice_of.dtype == np.int32


def test_kept_peaks_are_those_of_the_same_scorers_and_texts_only(random_cascade: Cascade, tmp_path: Path) -> None:
    steps: list[int] = []

    def kept(cascade: Cascade, exchanges: list[Exchange]) -> np.ndarray:
        steps.clear()
        return kept_peaks(cascade, table("prompt", exchanges), (0.5,), tmp_path, lambda _, done, __: steps.append(done))

    first = kept(random_cascade, EXCHANGES[:2])
    assert steps == [1, 2]
    np.testing.assert_array_equal(kept(random_cascade, EXCHANGES[:2]), first)
    assert not steps  # read, not computed

    kept(random_cascade, [EXCHANGES[0], Exchange("b", (Turn("user", "Hi!"),))])
    assert steps  # another text, though its id is the same
    weights = {view: w + 1 for view, w in random_cascade.probe.weights.items()}
    kept(replace(random_cascade, probe=replace(random_cascade.probe, weights=weights)), EXCHANGES[:2])
    assert steps

    for file in tmp_path.glob("peaks-*.npy"):
        file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(kept(random_cascade, EXCHANGES[:2]), first)
    assert steps  # damaged files are made anew
    assert not list(tmp_path.glob("*.part"))
