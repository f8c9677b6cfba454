"""The cascade's benchmark: costs by their formula, and figures that are those of a cascade which really escalates there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import hearing
import numpy as np
import pytest

from cascade import HEARD, SHARES, Cost, measure, table
from charter.evaluation.datasets import Item
from charter.models.cascade import Cascade
from charter.records import Exchange, Turn
from charter.statistics import Interval, recall_at_fpr

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


def test_a_ratio_is_what_the_last_stage_costs_over_what_the_cascade_does() -> None:
    read = Interval(0.1, 0.05, 0.2, 50)
    assert Cost(0.0, 4.0).ratio(read) == pytest.approx({"value": 10.0, "low": 5.0, "high": 20.0})
    assert Cost(1.0, 4.0).ratio(read) == pytest.approx({"value": 4 / 1.4, "low": 4 / 1.8, "high": 4 / 1.2})
    assert Cost(0.0, 4.0).ratio(Interval(0.0, 0.0, 0.0, 5))["value"] is None, "of nothing spent there is no ratio"


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
    assert found["flops"]["encoder"] > 0
    assert found["cascades"]["heard 25%, asked 2%"]["heard"]["value"] < 0.6
    lines = table({"guard": {"name": "g", "hash": "h"}, "view": "prompt", "rate": RATE, "seed": 0, **found})
    assert len(lines) == 5 + 1 + len(SHARES) + len(HEARD)


def test_the_table_has_a_row_for_each(found: dict[str, Any], tmp_path: Path) -> None:
    lines = table({"guard": {"name": "g", "hash": "h"}, "view": "prompt", "rate": RATE, "seed": 0, **found})
    assert len(lines) == 5 + 1 + len(SHARES)
    assert len({len(line) for line in lines[2:]}) == 1
