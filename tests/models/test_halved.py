"""16-bit weights: the product of the rounded weights, the same in whatever steps rows come."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Linear, Sequential

from charter.models import halved, packed
from charter.models.backbone import Backbone
from charter.models.batcher import Batcher
from charter.models.generation import Generator
from charter.models.halved import FEW, HalvedLinear
from charter.models.ragged import Keys, Memory, ragged

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


@given(
    rows=st.integers(0, 3 * FEW), inputs=st.integers(1, 40), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=3), bias=st.booleans()
)
def test_joined_layers_give_what_each_gives_by_itself(rows: int, inputs: int, sizes: list[int], bias: bool) -> None:
    torch.manual_seed(rows)
    apart = Sequential(*(Linear(inputs, size, bias=bias and number != 1) for number, size in enumerate(sizes))).requires_grad_(False)
    packed.pack(apart)
    halved.halve(apart)
    x = torch.randn(rows, inputs)
    with torch.inference_mode():
        expected = [layer(x) for layer in apart]
        halved.join(list(apart))
        joined = apart[0].joined
        assert isinstance(joined, halved.Joined)
        for found in (joined(x), [layer(x) for layer in apart]):
            torch.testing.assert_close(list(found), expected, rtol=1e-5, atol=1e-5)


def test_layers_are_joined_where_all_could_be_rounded() -> None:
    apart = Sequential(Linear(2, 1), Linear(2, 1)).requires_grad_(False)
    apart[1].weight[0, 0] = 1e6
    packed.pack(apart)
    halved.halve(apart)
    halved.join(list(apart))
    assert isinstance(apart[0], HalvedLinear)
    assert apart[0].joined is None


def test_a_step_of_a_rounded_llama_is_four_products_a_block(tiny_folder: Path) -> None:
    backbone = Backbone(str(tiny_folder), (1, 2))
    assert backbone.plain
    assert backbone.pack()
    assert backbone.halve()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        ragged(backbone, [(Keys(Memory(2**20)), [5])])
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["quantized::linear_dynamic_fp16"] == 4 * 2
    assert "mkldnn::_linear_pointwise" not in calls


def test_a_model_that_generates_keeps_its_layers_apart(chat_folder: Path) -> None:
    """It runs transformers' blocks, which ask each layer by itself."""
    generator = Generator(str(chat_folder))
    assert generator.pack()
    assert generator.halve()
    layers = packed.children(generator.body.layers, HalvedLinear)
    assert layers
    with torch.inference_mode(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        generator.batch([[5]])
    assert {event.key: event.count for event in profile.key_averages()}["quantized::linear_dynamic_fp16"] == len(layers)


def test_steps_and_batches_agree_as_closely_as_in_float32(tiny_folder: Path) -> None:
    backbone, exact = Backbone(str(tiny_folder)), Backbone(str(tiny_folder))
    assert not backbone.halve()  # nothing is packed yet
    assert backbone.pack()
    assert backbone.halve()
    whole = backbone.batch(ROWS)
    for size, opened in product((1, FEW, FEW + 1), (backbone.stream, Batcher(backbone).stream)):
        stream = opened()
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
