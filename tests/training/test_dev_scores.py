"""The dev split's scores are what serving gives: running maxima of every head, for any gate, in the table's order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hearing
import numpy as np
import pytest

from charter.models.cascade import Cascade
from charter.models.stage import ALWAYS
from charter.models.trained import Gate, Listening
from charter.records import Exchange, Turn, View
from charter.training.dev_scores import DevLogits, dev_scores
from charter.training.table import Table

VIEWS: tuple[View, ...] = ("prompt", "exchange")
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
@pytest.mark.parametrize("gate", [Gate(0.3), Gate(1.0), Gate(0.4, -3.9), Gate(0.7, 1e6)])
def test_peaks_are_the_highest_served_logits_of_every_head_whatever_the_gate(
    random_cascade: Cascade, view: View, rows: list[int], gate: Gate, tmp_path: Path
) -> None:
    exchanges = [EXCHANGES[n] for n in rows]
    logits = DevLogits(random_cascade, table(view, exchanges), tmp_path, lambda *_: None)
    served = replace(random_cascade, mix=dict.fromkeys(VIEWS, gate.mix), escalate=dict.fromkeys(VIEWS, gate.threshold))
    scored = list(served.batch(exchanges))
    found = logits.scores([gate]).logits
    assert found.shape == (len(rows), 3)
    np.testing.assert_allclose(found, [s.logits(view).max(0) for s in scored], atol=1e-4)
    np.testing.assert_array_equal(logits.peaks([gate], 1), found[:, :1])
    np.testing.assert_allclose(logits.peaks([]), [_screen_alone(random_cascade, e, view) for e in exchanges], atol=1e-5)


LISTENING = [Listening(0.0), Listening(0.3), Listening(1.0), Listening(0.4, 0.7), Listening(0.4, 0.7, 1e6), Listening(0.4, 1.0, 0.5)]


@pytest.mark.parametrize("own", LISTENING)
@pytest.mark.parametrize("gate", [Gate(0.4), Gate(0.4, -2.5), Gate(0.4, 1e6)])
def test_a_sentence_encoder_counts_as_it_is_served(
    random_cascade: Cascade, tiny_bert: str, own: Listening, gate: Gate, tmp_path: Path
) -> None:
    heard = hearing.listening(random_cascade, tiny_bert).whole
    assert heard is not None
    whole = replace(heard, mix=own.mix, lead=own.lead, escalate=own.threshold)
    cascade = replace(random_cascade, whole=whole, mix=dict.fromkeys(VIEWS, gate.mix), escalate=dict.fromkeys(VIEWS, gate.threshold))
    exchanges = [Exchange("r", (Turn("user", "Restricted."),)), *EXCHANGES[:2], Exchange("d", (*EXCHANGES[2].turns, Turn("user", "Why?")))]
    rows = replace(table("prompt", exchanges), slices=["chat"] * 4)
    logits = DevLogits(cascade, rows, tmp_path, lambda *_: None)
    served = list(cascade.batch(exchanges))
    np.testing.assert_allclose(logits.scores([gate], own).logits, [s.prompt.max(0) for s in served], atol=1e-4)
    assert logits.read([gate], own).value == pytest.approx(sum(s.read[0] for s in served[1:]) / sum(s.tokens for s in served[1:]))
    pieces = logits.pieces_heard(ALWAYS)
    assert logits.pieces_heard(own.threshold).tolist() == [s.read[1] for s in served]
    assert logits.heard(own).value == pytest.approx(sum(s.read[1] for s in served[1:]) / pieces[1:].sum())
    assert (logits.glances() >= own.threshold).tolist() == [s.read[1] > 0 for s in served]
    if own.threshold == gate.threshold == ALWAYS:
        assert logits.heard(own).value == logits.read([gate], own).value == 1


def test_replies_know_nothing_of_a_sentence_encoder(random_cascade: Cascade, tiny_bert: str, tmp_path: Path) -> None:
    replies, plain = (
        DevLogits(cascade, table("exchange", EXCHANGES[2:]), tmp_path, lambda *_: None)
        for cascade in (hearing.listening(random_cascade, tiny_bert), random_cascade)
    )
    np.testing.assert_array_equal(replies.peaks([Gate(0.4)]), plain.peaks([Gate(0.4)]))


def _screen_alone(cascade: Cascade, exchange: Exchange, view: View) -> np.ndarray:
    (runs,) = cascade.apart([exchange])
    return np.concatenate([run.apart[0] for run in runs if run.view == view]).max(0)


def test_what_a_gate_reads_is_what_the_cascade_reads_of_ordinary_traffic(random_cascade: Cascade, tmp_path: Path) -> None:
    """Row 0 is restricted, so rows 1 and on count; the second of them is of a slice of near misses."""
    exchanges = [
        Exchange(str(n), (Turn("user", text),)) for n, text in enumerate(["a b", "Hello there.", "Now a lock.", "Potions? " * 9, "x"])
    ]
    own = replace(table("prompt", exchanges), slices=["chat", "chat", "permitted:locksmiths", "chat", "chat"])
    logits = DevLogits(random_cascade, own, tmp_path, lambda *_: None)
    assert logits.ordinary.tolist() == [False, True, False, True, True]
    assert DevLogits(random_cascade, replace(own, ordinary=frozenset({"permitted:locksmiths"})), tmp_path, lambda *_: None).ordinary[2]
    peaks = logits.peaks([], 1)[logits.ordinary, 0]
    theta = float(np.sort(peaks)[1:].mean())
    served = list(replace(random_cascade, escalate=dict.fromkeys(VIEWS, theta)).batch([exchanges[n] for n in (1, 3, 4)]))
    found = logits.read([Gate(0.5, theta)])
    assert found.n == 3
    assert found.value == pytest.approx(sum(s.read[0] for s in served) / sum(s.tokens for s in served))
    assert 0 < found.value < 1
    assert logits.read([Gate(0.5)]).value == 1.0


def test_labels_go_to_the_heads_of_the_guard_and_slices_are_counted() -> None:
    found = dev_scores(table("prompt", EXCHANGES), np.zeros((3, 3), np.float32), ("locks", "potions"))
    assert found.labels.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert [found.names[n] for n in found.slice_of] == ["chat", "code", "chat"]
    assert found.slice_of.dtype == np.int32


def test_kept_logits_are_those_of_the_same_scorers_and_texts_only(random_cascade: Cascade, tmp_path: Path) -> None:
    steps: list[int] = []

    def kept(cascade: Cascade, exchanges: list[Exchange]) -> np.ndarray:
        steps.clear()
        logits = DevLogits(cascade, table("prompt", exchanges), tmp_path, lambda _, done, __: steps.append(done))
        assert logits.read([Gate(0.5)]).value == 1.0
        return logits.peaks([Gate(0.5)])

    first = kept(random_cascade, EXCHANGES[:2])
    assert steps == [1, 2]
    np.testing.assert_array_equal(kept(random_cascade, EXCHANGES[:2]), first)
    assert not steps  # read, not computed

    kept(random_cascade, [EXCHANGES[0], Exchange("b", (Turn("user", "Hi!"),))])
    assert steps  # another text, though its id is the same
    weights = {view: w + 1 for view, w in random_cascade.probe.weights.items()}
    kept(replace(random_cascade, probe=replace(random_cascade.probe, weights=weights)), EXCHANGES[:2])
    assert steps

    for kind in ("f32", "windows.npy", "npy"):
        for file in tmp_path.glob(f"dev-*.{kind}"):
            file.write_bytes(file.read_bytes()[:40])
        np.testing.assert_array_equal(kept(random_cascade, EXCHANGES[:2]), first)
        assert steps  # damaged files are made anew
    assert not list(tmp_path.glob("*.part"))
