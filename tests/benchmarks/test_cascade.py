"""The cascade's benchmark: costs by their formula, and figures that are those of a cascade which really escalates there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hearing
import numpy as np
import pytest

from cascade import HEARD, SHARES, Rates, Way, measure, table, texts
from charter.evaluation.datasets import Item
from charter.models.cascade import Cascade
from charter.models.trained import Gate, Listening
from charter.records import Exchange, Turn
from charter.statistics import recall_at_fpr
from charter.training.dev_scores import DevLogits

RATE = 0.2


def items(kind: str, n: int, positive: bool) -> list[Item]:
    texts = [
        f"{kind} {k}: " + " ".join(["the old door", "a lock of iron", "don't", "h3ll0"][: 1 + (k * 7 + len(kind)) % 4]) for k in range(n)
    ]
    return [Item(Exchange(f"{kind}-{k}", (Turn("user", text),)), positive, kind) for k, text in enumerate(texts)]


BENIGN = items("calm", 20, False)
HARMFUL = [("one", item) for item in items("loud", 8, True)] + [("two", item) for item in items("louder", 6, True)]


@pytest.fixture(scope="module")
def found(random_cascade: Cascade, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return measure(random_cascade, BENIGN, HARMFUL, "prompt", RATE, 3, 0, tmp_path_factory.mktemp("logits"))


def test_a_ratio_is_what_the_last_stage_costs_over_what_the_cascade_does(random_cascade: Cascade, tiny_bert: str, tmp_path: Path) -> None:
    """By hand, text by text."""
    exchanges = [item.exchange for item in BENIGN]
    logits = DevLogits(hearing.listening(random_cascade, tiny_bert), texts(BENIGN, "prompt"), tmp_path, lambda *_: None)
    at, theta = (float(np.sort(found)[10:12].mean()) for found in (logits.glances(), logits.impressions(Listening(0.4))))
    way = Way([Gate(0.5, theta)], Listening(0.4, 0.5, at))
    cascade = hearing.listening(random_cascade, tiny_bert)
    assert cascade.whole is not None
    whole = replace(cascade.whole, escalate=at)
    scored = list(replace(cascade, escalate={**cascade.escalate, "prompt": theta}, whole=whole).batch(exchanges))
    windows = [[w for t in e.turns for w in whole.encoder.rows(t.content)] for e in exchanges]
    spent = sum(0.1 * s.tokens + 5 * s.read[0] + 2 * s.read[1] for s in scored) + 0.3 * sum(len(w) for own in windows for w in own)
    found = Rates(0.1, (5.0,), 0.3, 2.0).cheaper(logits, way, 0)
    assert found["value"] == pytest.approx(5 * sum(s.tokens for s in scored) / spent)
    assert found["low"] < found["value"] < found["high"]
    nothing = Way([Gate(0.5, np.inf)], None)
    assert Rates(0.0, (4.0,)).cheaper(logits, nothing, 0)["value"] is None, "of nothing spent there is no ratio"


def test_a_cascade_that_asks_about_everything_saves_nothing(found: dict[str, Any]) -> None:
    own = found["cascades"]["as it is"]
    assert (own["threshold"], own["read"]["value"], own["cheaper_flops"]["value"]) == (None, 1.0, 1.0)
    assert own["cheaper_seconds"]["value"] < 1.0, "the screen's time comes on top"


def test_the_fewer_texts_are_asked_about_the_cheaper(found: dict[str, Any]) -> None:
    rows = list(found["cascades"].values())[1:]
    assert len(rows) == len(SHARES)
    read = [row["read"]["value"] for row in rows]
    assert read == sorted(read, reverse=True)
    assert read[-1] < 0.3 < read[0]
    for row in rows:
        if row["read"]["value"]:
            assert row["cheaper_flops"]["value"] == pytest.approx(1 / row["read"]["value"])
        assert row["recall"]["low"] <= row["recall"]["value"] <= row["recall"]["high"]
        less = row["recall"]["value"] - found["alone"]["recall"]["value"]
        assert row["recall_less_alone"]["value"] == pytest.approx(less)
        assert sum(own["positives"] for own in row["sets"].values()) == len(HARMFUL)


def test_the_figures_are_those_of_a_cascade_that_escalates_there(found: dict[str, Any], random_cascade: Cascade) -> None:
    own = found["cascades"]["asked for 50% of texts"]
    real = replace(random_cascade, escalate={**random_cascade.escalate, "prompt": own["threshold"]})
    alone = replace(random_cascade, mix={**random_cascade.mix, "prompt": 1.0})
    exchanges = [item.exchange for item in (*BENIGN, *(item for _, item in HARMFUL))]
    labels = np.arange(len(exchanges)) >= len(BENIGN)
    scored = list(real.batch(exchanges))
    peaks = [one.prompt[:, 0].max() for one in scored]
    assert own["recall"]["value"] == pytest.approx(recall_at_fpr(labels, peaks, RATE))
    peaks = [one.prompt[:, 0].max() for one in alone.batch(exchanges)]
    assert found["alone"]["recall"]["value"] == pytest.approx(recall_at_fpr(labels, peaks, RATE))
    read = [sum(one.read) for one in scored[: len(BENIGN)]]
    assert own["read"]["value"] == pytest.approx(sum(read) / sum(one.tokens for one in scored[: len(BENIGN)]))


def test_with_a_sentence_encoder_the_figures_are_those_of_one_that_asks_so(random_cascade: Cascade, tiny_bert: str, tmp_path: Path) -> None:
    heard = hearing.listening(random_cascade, tiny_bert)
    found = measure(heard, BENIGN, HARMFUL, "prompt", RATE, 3, 0, tmp_path)
    exchanges = [item.exchange for item in (*BENIGN, *(item for _, item in HARMFUL))]
    labels = np.arange(len(exchanges)) >= len(BENIGN)
    for name in ("as it is", "asked for 30% of texts"):
        own = found["cascades"][name]
        threshold = -np.inf if own["threshold"] is None else own["threshold"]
        scored = list(replace(heard, escalate={**heard.escalate, "prompt": threshold}).batch(exchanges))
        assert own["recall"]["value"] == pytest.approx(recall_at_fpr(labels, [one.prompt[:, 0].max() for one in scored], RATE))
        tokens = sum(one.tokens for one in scored[: len(BENIGN)])
        assert own["read"]["value"] == pytest.approx(sum(one.read[0] for one in scored[: len(BENIGN)]) / tokens)
        assert own["heard"]["value"] == 1
    assert found["flops"]["encoder"] > found["flops"]["glance"] > 0
    assert 0 < found["seconds"]["glance"] < found["seconds"]["encoder"]
    assert found["cascades"]["heard 25%, asked 2%"]["heard"]["value"] < 0.6
    lines = table({"guard": {"name": "g", "hash": "h"}, "view": "prompt", "rate": RATE, "seed": 0, **found})
    assert len(lines) == 5 + 1 + len(SHARES) + len(HEARD)


def test_the_table_has_a_row_for_each(found: dict[str, Any], tmp_path: Path) -> None:
    lines = table({"guard": {"name": "g", "hash": "h"}, "view": "prompt", "rate": RATE, "seed": 0, **found})
    assert len(lines) == 5 + 1 + len(SHARES)
    assert len({len(line) for line in lines[2:]}) == 1
