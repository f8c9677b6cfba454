"""A Llama's blocks run by ourselves give what transformers gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charter.models import llama
from charter.models.backbone import Backbone
from charter.models.value_head import FinalBackbone

rows_of = st.lists(st.lists(st.integers(3, 250), min_size=1, max_size=12), min_size=1, max_size=5)


def side_by_side(backbone: Backbone, rows: list[list[int]]) -> list[torch.Tensor]:
    """States of several sequences in one row."""
    lengths = [len(row) for row in rows]
    ids, positions = torch.tensor([i for row in rows for i in row]), torch.cat([torch.arange(n) for n in lengths])
    return list(backbone.side_by_side(ids, positions, llama.apart(lengths)).split(lengths))


@pytest.mark.parametrize("kind", [Backbone, FinalBackbone])
@given(rows=rows_of)
def test_sequences_side_by_side_have_the_states_of_padded_ones(kind: type[Backbone], tiny_folder: Path, rows: list[list[int]]) -> None:
    backbone = kind(str(tiny_folder))
    for own, expected in zip(side_by_side(backbone, rows), backbone.batch(rows), strict=True):
        torch.testing.assert_close(own, expected[: len(own)], rtol=1e-5, atol=1e-5)


def test_the_embedded_model_is_one() -> None:
    backbone = Backbone("embedded", (3, 9))
    rows = [[504, 1018, 282], [2683]]
    for own, expected in zip(side_by_side(backbone, rows), backbone.batch(rows), strict=True):
        scale = expected[: len(own)].norm(dim=-1)
        assert bool(((own - expected[: len(own)]).norm(dim=-1) < 1e-4 * scale).all())


@given(
    heads=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3)]),
    before=st.integers(0, 9),
    n=st.integers(1, 6),
    scale=st.sampled_from([None, 0.3]),
)
def test_attention_is_that_of_the_textbook(heads: tuple[int, int], before: int, n: int, scale: float | None) -> None:
    many, few = heads
    torch.manual_seed(n)
    query, keys, values = torch.randn(many, n, 8), torch.randn(few, before + n, 8), torch.randn(few, before + n, 8)
    got = llama.attended(query, keys, values, scale)
    for head in range(many):
        own = head // (many // few)
        for i in range(n):
            seen = slice(0, before + i + 1)
            weights = torch.softmax(keys[own, seen] @ query[head, i] * (scale or 8**-0.5), 0)
            torch.testing.assert_close(got[head, i], weights @ values[own, seen], rtol=1e-4, atol=1e-5)


@given(heads=st.sampled_from([(1, 1), (4, 2), (9, 3)]), length=st.integers(1, 2 * llama.BLOCK + 3))
def test_attention_by_blocks_is_attention(heads: tuple[int, int], length: int) -> None:
    many, few = heads
    torch.manual_seed(length)
    query, keys, values = torch.randn(many, length, 8), torch.randn(few, length, 8), torch.randn(few, length, 8)
    before = query.clone()
    torch.testing.assert_close(llama.by_blocks(query, keys, values), llama.attended(query, keys, values), rtol=1e-4, atol=1e-5)
    assert torch.equal(query, before)


def test_sixteen_bits_side_by_side_are_as_near_as_transformers_own() -> None:
    backbone, exact = Backbone("embedded", (3, 9)), Backbone("embedded", (3, 9))
    if not backbone.hurry():
        pytest.skip("this processor has no instructions for bfloat16")
    rows = [list(range(400, 400 + n)) for n in (150, 3, 70)]
    for own, other, true in zip(backbone.apart(rows), backbone.batch(rows), exact.apart(rows), strict=True):
        error, usual = ((states[: len(true)] - true).norm() / true.norm() for states in (own, other))
        assert float(error) < max(0.02, 1.5 * float(usual))


@pytest.mark.parametrize(("rope", "fits"), [("linear", True), ("dynamic", False)])
def test_a_rotation_that_depends_on_the_length_is_left_to_transformers(tiny_folder: Path, tmp_path: Path, rope: str, fits: bool) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    rotation = {"rope_type": rope, "factor": 2.0, "rope_theta": 10_000.0}
    (folder / "config.json").write_text(json.dumps({**config, "rope_scaling": rotation, "rope_parameters": rotation}))
    backbone = Backbone(str(folder))
    assert backbone.plain is fits
    if fits:
        (own,) = side_by_side(backbone, [[5, 6, 7, 8]])
        torch.testing.assert_close(own, backbone.batch([[5, 6, 7, 8]])[0], rtol=1e-5, atol=1e-5)
