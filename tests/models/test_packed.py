"""Weights laid out for serving give the same states, and come back to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Linear, Module, Sequential

from charter.models import packed
from charter.models.backbone import Backbone
from charter.models.value_head import FinalBackbone

pytestmark = pytest.mark.skipif(not packed.able(), reason="this torch was built without oneDNN")
ROWS = [list(range(4, 39)), [7], [30, 5, 5]]


@given(rows=st.integers(0, 40), inputs=st.integers(1, 70), outputs=st.integers(1, 70), bias=st.booleans())
def test_a_packed_layer_gives_what_the_layer_gives(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(rows)
    whole = Sequential(Linear(inputs, outputs, bias=bias)).requires_grad_(False)
    x = torch.randn(1, rows, inputs)
    expected, weight = whole(x), whole[0].weight.clone()
    packed.pack(whole)
    with torch.inference_mode():
        torch.testing.assert_close(whole(x), expected)
    packed.unpack(whole)
    assert torch.equal(whole[0].weight, weight)
    assert torch.equal(whole(x), expected)


@pytest.mark.parametrize("kind", [Backbone, FinalBackbone])
def test_states_of_a_packed_backbone_are_the_same(kind: type[Backbone], tiny_folder: Path) -> None:
    backbone = kind(str(tiny_folder))
    before, flops, fingerprint = backbone.batch(ROWS), backbone.flops_per_token, backbone.fingerprint
    assert backbone.pack()
    torch.testing.assert_close(backbone.batch(ROWS), before, rtol=1e-4, atol=1e-4)
    stream = backbone.stream()
    torch.testing.assert_close(torch.cat([stream.feed([i]) for i in ROWS[0]]), before[0], rtol=1e-4, atol=1e-4)
    assert (backbone.flops_per_token, backbone.fingerprint) == (flops, fingerprint)


def test_sixteen_bits_come_after_unpacking(tiny_folder: Path) -> None:
    backbone, plain = Backbone(str(tiny_folder)), Backbone(str(tiny_folder))
    assert backbone.pack()
    if not plain.hurry():
        pytest.skip("this processor has no instructions for bfloat16")
    assert backbone.hurry()
    assert backbone.dtype == "bfloat16"
    assert torch.equal(backbone.batch(ROWS), plain.batch(ROWS))


class Looking(Module):
    """A layer that asks for its weights, as some models' do."""

    def __init__(self, inner: Linear) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(x.to(self.inner.weight.dtype))
        return out


def test_a_model_that_looks_at_its_weights_is_left_as_it_was(tiny_folder: Path) -> None:
    backbone = Backbone(str(tiny_folder))
    mlp = backbone.body.layers[0].mlp
    mlp.up_proj = Looking(mlp.up_proj)
    before = backbone.batch(ROWS)
    assert not backbone.pack()
    assert torch.equal(backbone.batch(ROWS), before)
