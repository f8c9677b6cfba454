"""Long exchanges in training: every token once, in the light of half a context, and the loss is that of the exchange as a whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.models.backbone import Backbone
from charter.models.overlap import Overlapping
from charter.models.value_head import FinalBackbone, ValueHead
from charter.records import Exchange, Turn
from charter.training.losses import annealed_cummax
from charter.training.pieces import CONTEXT, NOWHERE, pieces
from charter.training.rows import collate, encode, rows_of, schedule
from charter.training.table import Table
from charter.training.tower import Tower
from charter.training.value_head import Options, fit_value_head


def table(texts: list[str], labels: list[int]) -> Table:
    exchanges = [Exchange(str(n), (Turn("user", text),)) for n, text in enumerate(texts)]
    names = [exchange.id for exchange in exchanges]
    return Table("prompt", (), exchanges, np.array([[label] for label in labels], np.float32), names, names, frozenset(), len(texts))


@pytest.mark.parametrize("n", [1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT, 3 * CONTEXT + 700])
def test_each_token_of_a_long_exchange_is_marked_in_one_piece(n: int) -> None:
    ids = list(range(n))
    found = [i for own, marks in pieces(ids, [0] * n) for i, mark in zip(own, marks, strict=True) if mark >= 0]
    assert found == ids
    assert all(len(own) <= CONTEXT for own, _ in pieces(ids, [0] * n))
    tail = pieces(ids, [NOWHERE] * (n - 1) + [0])
    assert [own[-1] for own, _ in tail] == [n - 1]


@settings(max_examples=40)
@given(st.integers(1, 150), st.integers(2, 64), st.data())
def test_no_marked_token_is_lost_or_without_half_a_context(n: int, context: int, data: st.DataObject) -> None:
    marks = data.draw(st.lists(st.sampled_from([NOWHERE, 0, 3]), min_size=n, max_size=n))
    found = pieces(range(n), marks, context)
    kept = {i: mark for own, told in found for i, mark in zip(own, told, strict=True) if mark != NOWHERE}
    assert kept == {i: mark for i, mark in enumerate(marks) if mark != NOWHERE}
    assert sum(mark != NOWHERE for _, told in found for mark in told) == len(kept)
    for own, told in found:
        assert own == list(range(own[0], own[0] + len(own)))
        assert all(i - own[0] >= min(i, context // 2) for i, mark in zip(own, told, strict=True) if mark != NOWHERE)


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=30), seed=st.integers(0, 3), budget=st.integers(10, 300))
def test_the_pieces_of_an_exchange_come_into_one_batch(sizes: list[int], seed: int, budget: int) -> None:
    exchange = np.repeat(np.arange(len(sizes)), sizes)
    lengths = [40 if sizes[n] > 1 else 5 + n for n in exchange]
    batches = schedule(lengths, budget, 2, seed, exchange.tolist())
    assert sorted(int(row) for batch in batches for row in batch) == sorted([*range(len(lengths))] * 2)
    for batch in batches:
        own = exchange[batch]
        assert all((own == n).sum() == sizes[n] for n in set(own))
        assert len(set(own)) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
        assert [*dict.fromkeys(own)] == [own[0], *(b for a, b in zip(own, own[1:], strict=False) if a != b)], "and stand together"


def test_the_loss_of_a_long_exchange_is_that_of_reading_it_as_a_whole(tiny_folder: Path, tiny_llama: Backbone) -> None:
    own = table(["the old lock of the door " * 30, "the door", "is the lock old? " * 30], [1, 0, 1])
    rows, long = rows_of([own], tiny_llama.encoder, tiny_llama.context)
    assert (long, len(rows) > 8) == (2, True)
    backbone = FinalBackbone(str(tiny_folder))
    weight = torch.randn(backbone.width, 1, generator=torch.Generator().manual_seed(0))
    whole, counted = [], []
    for exchange in own.exchanges:
        ids, scored = encode(backbone.encoder, exchange, "prompt")
        whole.append(Overlapping(backbone).feed(ids)[:, 0] @ weight)
        counted.append(torch.tensor(scored))
    batch = collate(rows, np.arange(len(rows)))
    logits = backbone.batch([row.ids.tolist() for row in rows])[:, :, 0] @ weight
    joined, scored = batch.joined(logits)
    assert joined.shape[0] == len(batch.labels) == 3
    for omega in (0.0, 0.5, 1.0):
        each = [annealed_cummax(z[None], y[None], m[None], omega) for z, y, m in zip(whole, batch.labels, counted, strict=True)]
        assert annealed_cummax(joined, batch.labels, scored, omega) == pytest.approx(float(torch.stack(each).mean()), rel=1e-4)


def test_short_exchanges_are_left_as_they_stand(tiny_llama: Backbone) -> None:
    rows, long = rows_of([table(["the door", "the old lock"], [0, 1])], tiny_llama.encoder, 64)
    batch = collate(rows, np.array([1, 0]))
    logits = torch.randn(*batch.ids.shape, 1)
    joined, scored = batch.joined(logits)
    assert long == 0
    assert joined is logits
    assert scored is batch.scored


@pytest.mark.parametrize("split", [False, True])
def test_a_batch_that_is_run_in_parts_gives_the_same_gradient(split: bool, tiny_folder: Path) -> None:
    ids = torch.randint(3, 250, (5, 20), generator=torch.Generator().manual_seed(1))
    found = []
    for most in (4_096, 40, 1):
        tower = Tower(FinalBackbone(str(tiny_folder)), 1, 2, ("prompt",), 1, 0)
        tower.most = most
        torch.nn.init.ones_(tower.weight)
        inputs = tower.lower(ids) if split and tower.try_split(ids) else ids
        logits, _ = tower(inputs, ("prompt",) * 5)
        logits.square().mean().backward()
        found.append([p.grad for p in tower.trainable().values() if p.grad is not None])
    assert len(found[0]) > 4
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_what_stands_at_the_beginning_of_a_long_exchange_is_learned(tiny_folder: Path, tmp_path: Path) -> None:
    """The end is the same in all, and longer than the context."""
    texts = [f"{'opens the lock' if n % 2 else 'is the old door'} {n}" + " of the house" * 40 for n in range(12)]
    own = table(texts, [n % 2 for n in range(12)])
    options = Options(str(tiny_folder), blocks=1, rank=4, epochs=40, lr=2e-2, next_token=0.0, batch_tokens=256, precision="fp32")
    head = ValueHead(fit_value_head([own], tmp_path, options))
    assert '"in_pieces": 12' in (tmp_path / "log.jsonl").read_text().splitlines()[0]
    tops = []
    for exchange in own.exchanges:
        ids, scored = encode(head.backbone.encoder, exchange, "prompt")
        assert len(ids) > 2 * head.backbone.context
        tops.append(head.logits(Overlapping(head.backbone).feed(ids), "prompt")[np.array(scored), 0].max())
    assert min(tops[1::2]) > max(tops[::2]) + 1
    ends = [head.batch([encode(head.backbone.encoder, e, "prompt")[0][-64:]], "prompt")[0][:, 0].max() for e in own.exchanges]
    assert min(ends[1::2]) < max(ends[::2]) + 1, "the ends alone don't tell, so a cut would be noticed"


def test_a_killed_run_with_long_exchanges_goes_on_to_the_same_weights(tiny_folder: Path, tmp_path: Path) -> None:
    own = table(["the old lock of the door " * 30, "the door", "is the lock old? " * 30, "the house"], [1, 0, 1, 0])
    options = Options(str(tiny_folder), blocks=1, rank=4, epochs=3, lr=1e-2, next_token=0.0, batch_tokens=128, save_every=1)
    whole = fit_value_head([own], tmp_path / "whole", options)

    def kill(_stage: str, done: int, _total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_value_head([own], tmp_path / "cut", options, kill)
    with pytest.raises(Exception, match="other data or options"):
        fit_value_head([own], tmp_path / "cut", replace(options, batch_tokens=100))
    resumed = fit_value_head([own], tmp_path / "cut", options)
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
