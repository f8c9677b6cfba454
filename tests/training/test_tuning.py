"""A tuned sentence encoder: what is stored is what was trained, a killed run goes on to the same, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from charter.errors import BackboneError, DataError
from charter.models.probe import Hidden
from charter.models.sentence import SentenceEncoder
from charter.statistics import auroc
from charter.training.tuning import SAVE_EVERY, Windowed, tune

WORDS = ["door", "lock", "open the door", "a lock, please", "is the lock old?", "no"]


def data(encoder: SentenceEncoder, n: int = 64) -> Windowed:
    """Texts of two kinds, some of several windows, which a random encoder's vectors hardly tell apart."""
    rng = np.random.default_rng(0)
    labels = (np.arange(n) % 2).astype(np.float32)[:, None]
    texts = [
        f"{rng.choice(WORDS)} {'x7' if label else '7x'} {rng.choice(WORDS)}" * (9 if k % 16 < 2 else 1) for k, label in enumerate(labels)
    ]
    rows = [(number, row) for number, text in enumerate(texts) for row in encoder.rows(text)]
    return Windowed([row for _, row in rows], np.array([number for number, _ in rows]), labels)


def layer(width: int, units: int = 8) -> tuple[Hidden, np.ndarray]:
    rng = np.random.default_rng(1)
    inner, outer = (rng.normal(size=shape).astype(np.float32) for shape in ((units, width), (1, units)))
    return Hidden(inner, np.zeros(units, np.float32), outer), np.zeros(1, np.float32)


def logits(encoder: SentenceEncoder, own: Hidden, bias: np.ndarray, rows: list[list[int]]) -> np.ndarray:
    with torch.inference_mode():
        return own.logits(encoder.pooled(rows).float().numpy())[:, 0] + bias[0]


def test_it_learns_and_the_stored_change_gives_what_was_trained(tiny_bert: str, tmp_path: Path) -> None:
    encoder = SentenceEncoder(tiny_bert)
    learned, start = data(encoder), layer(encoder.width)
    before = auroc(learned.labels[learned.owner, 0] > 0, logits(encoder, *start, learned.rows))
    seen: list[tuple[int, int]] = []
    change, own, bias = tune(encoder, learned, start, 60, 0, tmp_path, lambda *done: seen.append(done))
    assert seen == [(n + 1, 120) for n in range(120)]
    stored = SentenceEncoder(tiny_bert, change)
    found = logits(stored, own, bias, learned.rows)
    assert auroc(learned.labels[learned.owner, 0] > 0, found) > before + 0.1
    encoder.for_training().eval()
    np.testing.assert_allclose(found, logits(encoder, own, bias, learned.rows), atol=2e-2)
    assert (stored.base, stored.fingerprint == stored.base) == (SentenceEncoder(tiny_bert).fingerprint, False)


def test_a_run_that_was_killed_goes_on_to_the_same(tiny_bert: str, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(done: int, of: int) -> None:
        if done == SAVE_EVERY + 7:
            raise Killed

    learned, start = data(SentenceEncoder(tiny_bert)), layer(SentenceEncoder(tiny_bert).width)
    whole, own, bias = tune(SentenceEncoder(tiny_bert), learned, start, 60, 3, tmp_path / "whole")
    with pytest.raises(Killed):
        tune(SentenceEncoder(tiny_bert), learned, start, 60, 3, tmp_path / "cut", kill)
    steps: list[int] = []
    again, own_again, bias_again = tune(
        SentenceEncoder(tiny_bert), learned, start, 60, 3, tmp_path / "cut", lambda done, of: steps.append(done)
    )
    assert steps[0] == SAVE_EVERY + 1
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert np.array_equal(own.inner, own_again.inner)
    assert np.array_equal(bias, bias_again)
    (log,) = (tmp_path / "cut").glob("*/log.jsonl")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(1, 121))
    other, _, _ = tune(SentenceEncoder(tiny_bert), learned, start, 60, 4, tmp_path / "whole")
    assert not all(torch.equal(whole[name], other[name]) for name in whole)


def test_what_can_not_be_tuned_is_said(tiny_bert: str, tmp_path: Path) -> None:
    encoder = SentenceEncoder(tiny_bert)
    learned, (own, bias) = data(encoder), layer(encoder.width)
    with pytest.raises(DataError, match="the loss of step 1 of 2 is not finite"):
        tune(encoder, learned, (own, np.full_like(bias, np.nan)), 1, 0, tmp_path)
    odd = SentenceEncoder(tiny_bert)
    odd.for_training().encoder.layer = torch.nn.Identity()
    with pytest.raises(BackboneError, match="not where BERT has them"):
        tune(odd, learned, (own, bias), 1, 0, tmp_path)
