"""The escalation threshold on a dev split whose screen knows one word: as high as the recall allows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hearing
import numpy as np
import pytest
from heads import random_change

from charter.models.cascade import Cascade
from charter.models.probe import Probe
from charter.models.recalibrate import point, recall
from charter.models.screen import BUCKETS, Screen, features
from charter.models.stage import ALWAYS
from charter.models.trained import Gate, Listening
from charter.models.value_head import ValueHead
from charter.records import Exchange, Turn, View
from charter.statistics import auroc
from charter.training.dev_scores import DevLogits
from charter.training.operating_point import EARNED, LOSS, MIXES, WHOLES, operating_point, tried
from charter.training.table import Table

VIEWS: tuple[View, ...] = ("prompt", "exchange")
BUDGETS = 0.05, 0.2
CALM = ("the house", "the old house", "an old door", "the door of the house", "houses", "a door")


@pytest.fixture(scope="module")
def cascade(tiny_folder: Path) -> Cascade:
    """The screen knows "lock"; probe and value head are random."""
    from charter.models.backbone import Backbone

    backbone = Backbone(str(tiny_folder))
    weight = np.zeros((BUCKETS, 3), np.float32)
    found, _ = features("lock", "")
    weight[found.buckets, 0] = 5.0 * found.signs
    rng = np.random.default_rng(2)
    probe = {view: rng.normal(0, 0.2, (3, 32)).astype(np.float32) for view in VIEWS}
    bias = dict.fromkeys(VIEWS, np.full(3, -3, np.float32))
    own = Cascade(
        ("locks", "potions"),
        backbone,
        Probe(backbone.layers, probe, bias),
        Screen(dict.fromkeys(VIEWS, weight), bias),
        dict.fromkeys(VIEWS, 0.5),
    )
    head = ValueHead(random_change(str(tiny_folder), None, 1))
    return own.with_head(head, dict.fromkeys(VIEWS, 0.5), dict.fromkeys(VIEWS, ALWAYS))


def dev(restricted: str) -> Table:
    """60 exchanges, every third restricted."""
    texts = [f"{restricted} {CALM[n % 6]} {n}" if n % 3 == 0 else f"{CALM[n % 6]} {CALM[n % 5]} {n}" for n in range(60)]
    labels = np.zeros((60, 3), np.float32)
    labels[::3, :2] = 1
    exchanges = [Exchange(str(n), (Turn("user", text),)) for n, text in enumerate(texts)]
    return Table("prompt", ("locks", "potions"), exchanges, labels, ["chat"] * 60, [str(n) for n in range(60)], frozenset(), 60)


def test_without_gates_every_stage_reads_everything(cascade: Cascade, tmp_path: Path) -> None:
    chosen = operating_point(cascade, dev("lock lock"), "prompt", *BUDGETS, set(), tmp_path, lambda *_: None)
    assert [gate.threshold for gate in chosen.gates] == [ALWAYS, ALWAYS]
    assert all(gate.read is None and gate.mix in MIXES for gate in chosen.gates)


@pytest.mark.parametrize("gated", [{0}, {1}, {0, 1}])
def test_the_threshold_is_the_highest_tried_that_keeps_the_recall(cascade: Cascade, gated: set[int], tmp_path: Path) -> None:
    table = dev("lock lock")
    chosen = operating_point(cascade, table, "prompt", *BUDGETS, gated, tmp_path, lambda *_: None)
    logits = DevLogits(cascade, table, tmp_path, lambda *_: None)

    def found(gates: list[Gate]) -> float:
        scores = logits.scores(gates)
        value = recall(scores, point(scores, *BUDGETS, {}).policy(2)).value
        assert value is not None
        return value

    for number, gate in enumerate(chosen.gates):
        before = list(chosen.gates[:number])
        if number not in gated:
            assert gate.threshold == ALWAYS
            continue
        full = found([*before, Gate(gate.mix)])
        assert full > 0.5
        assert found([*before, gate]) >= (1 - LOSS) * full
        thresholds = tried(logits.peaks(before, 1)[logits.ordinary, 0])
        assert thresholds == sorted(thresholds, reverse=True)
        assert gate.threshold in thresholds
        assert all(found([*before, Gate(gate.mix, theta)]) < (1 - LOSS) * full for theta in thresholds if theta > gate.threshold)
        assert gate.read is not None
        assert gate.read == logits.read([*before, gate])
        assert 0 <= gate.read.value < 1
    np.testing.assert_array_equal(chosen.dev.logits, logits.scores(chosen.gates).logits)
    again = point(chosen.dev, *BUDGETS, {})
    assert (again.temperature, again.offset, again.calibration) == (chosen.temperature, chosen.offset, chosen.calibration)


@pytest.mark.parametrize("gated", [set(), {0}])
def test_with_a_sentence_encoder_the_first_impression_is_the_gate(
    cascade: Cascade, tiny_bert: str, gated: set[int], tmp_path: Path
) -> None:
    table = dev("lock lock")
    own = hearing.listening(replace(cascade, head=None), tiny_bert)
    assert own.whole is not None
    chosen = operating_point(own, table, "prompt", *BUDGETS, gated, tmp_path, lambda *_: None)
    (gate,), whole = chosen.gates, chosen.whole
    assert whole is not None
    logits = DevLogits(own, table, tmp_path, lambda *_: None)
    truth = table.labels[:, 0] > 0.5

    def best(share: float) -> float:
        return max(auroc(truth, logits.peaks([Gate(share)], 1, Listening(mix))[:, 0]) for mix in WHOLES)

    assert auroc(truth, logits.peaks([Gate(gate.mix)], 1, Listening(whole.mix))[:, 0]) == best(gate.mix)
    assert gate.mix == 1 or best(gate.mix) > best(1.0) + EARNED
    if gated:
        assert gate.threshold in tried(logits.impressions(whole)[logits.ordinary])
        assert gate.read == logits.read([gate], whole)
        assert 0 <= gate.read.value < 1
        assert (whole.read is None) == (whole.threshold == ALWAYS)
        assert whole.read in (None, logits.heard(whole))
        assert whole.threshold == ALWAYS or whole.threshold in tried(logits.glances()[logits.ordinary])
        leads = {share: auroc(truth, logits.impressions(Listening(whole.mix, share))) for share in (*WHOLES, 1.0)}
        assert leads[whole.lead] == max(leads.values()) or (whole.lead == 1 and leads[1.0] >= max(leads.values()) - EARNED)
    else:
        assert (gate.threshold, whole.threshold) == (ALWAYS, ALWAYS)
    served = replace(
        own, mix=dict.fromkeys(VIEWS, gate.mix), escalate=dict.fromkeys(VIEWS, gate.threshold),
        whole=replace(own.whole, mix=whole.mix, lead=whole.lead, escalate=whole.threshold),
    )  # fmt: skip
    np.testing.assert_allclose(chosen.dev.logits, [s.prompt.max(0) for s in served.batch(table.exchanges)], atol=1e-3)


def test_the_dev_scores_are_those_of_the_cascade_as_it_is_served(cascade: Cascade, tmp_path: Path) -> None:
    table = dev("lock lock")
    chosen = operating_point(cascade, table, "prompt", *BUDGETS, {0, 1}, tmp_path, lambda *_: None)
    probe, head = chosen.gates
    assert cascade.head
    served = replace(
        cascade, mix=dict.fromkeys(VIEWS, probe.mix), escalate=dict.fromkeys(VIEWS, probe.threshold),
        head=replace(cascade.head, mix=dict.fromkeys(VIEWS, head.mix), escalate=dict.fromkeys(VIEWS, head.threshold)),
    )  # fmt: skip
    scored = list(served.batch(table.exchanges))
    np.testing.assert_allclose(chosen.dev.logits, [s.prompt.max(0) for s in scored], atol=1e-3)
    ordinary = [s for s, label in zip(scored, table.labels[:, 0], strict=True) if not label]
    assert head.read is not None
    assert head.read.value == pytest.approx(sum(s.read[1] for s in ordinary) / sum(s.tokens for s in ordinary))
