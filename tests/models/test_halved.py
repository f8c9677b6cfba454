"""16-bit weights: the product of the rounded weights, the same in whatever steps rows come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Linear, Sequential

from charter.models import halved, packed
from charter.models.backbone import Backbone
from charter.models.halved import FEW, HalvedLinear

pytestmark = pytest.mark.skipif(not (packed.able() and halved.able()), reason="this torch has no product with 16-bit weights")
ROWS = [list(range(4, 39)), [7], [30, 5, 5]]


@given(rows=st.integers(0, 3 * FEW), inputs=st.integers(1, 70), outputs=st.integers(1, 70), bias=st.booleans())
def test_it_is_the_product_with_rounded_weights_at_any_number_of_rows(rows: int, inputs: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(rows)
    whole = Sequential(Linear(inputs, outputs, bias=bias)).requires_grad_(False)
    x = torch.randn(1, rows, inputs)
    rounded = whole[0].weight.half().double()
    expected = x.double() @ rounded.T + (whole[0].bias.double() if bias else 0)
    packed.pack(whole)
    halved.halve(whole)
    assert isinstance(whole[0], HalvedLinear)
    with torch.inference_mode():
        got = whole(x)
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)
    packed.unpack(whole)
    assert torch.equal(whole[0].weight.double(), rounded)


def test_steps_and_batches_agree_as_closely_as_in_float32(tiny_folder: Path) -> None:
    backbone, exact = Backbone(str(tiny_folder)), Backbone(str(tiny_folder))
    assert not backbone.halve()  # nothing is packed yet
    assert backbone.pack()
    assert backbone.halve()
    whole = backbone.batch(ROWS)
    for size in (1, FEW, FEW + 1):
        stream = backbone.stream()
        steps = [stream.feed(ROWS[0][at : at + size]) for at in range(0, len(ROWS[0]), size)]
        torch.testing.assert_close(torch.cat(steps), whole[0], rtol=1e-4, atol=1e-4)
    plain = exact.batch(ROWS)[0]
    assert 0 < float((whole[0] - plain).norm() / plain.norm()) < 1e-2
    assert backbone.fingerprint == exact.fingerprint


def test_weights_beyond_sixteen_bits_are_left_as_they_are() -> None:
    whole = Sequential(Linear(2, 1, bias=False)).requires_grad_(False)
    whole[0].weight[0, 0] = 1e6
    packed.pack(whole)
    halved.halve(whole)
    assert type(whole[0]) is packed.PackedLinear
