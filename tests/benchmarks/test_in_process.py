"""The in-process benchmark counts what the model really multiplies, weights laid out for serving included."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.guard.in_process import InProcessGuard, load_in_process
from charter.models.generation import Generator, Sampling
from in_process import PROMPT, flops


@pytest.fixture(scope="module")
def guard(chat_guard: Path, chat_folder: Path) -> InProcessGuard:
    return load_in_process(chat_guard, str(chat_folder))


@pytest.mark.parametrize("n", [3, 9])
def test_flops_are_two_a_weight_and_token(guard: InProcessGuard, n: int) -> None:
    backbone = guard.guard.cascade.backbone
    assert isinstance(backbone, Generator)
    counted = flops(guard, Sampling(n, temperature=0))
    head = 2 * backbone._model.get_output_embeddings().weight.numel()
    prompt = backbone.start(PROMPT).prompt_tokens
    blocks = backbone.flops_per_token * (prompt + counted.tokens - 1) + head * counted.tokens
    assert blocks * 0.95 < counted.model < blocks * 1.3  # norms have no matrices; attention over the context comes on top
    assert counted.last == pytest.approx(2 * backbone.flops_per_token, rel=0.3)  # the last token and the mark behind it
    assert counted.prompt == 0  # this guard has no sentence encoder


def test_the_weights_lie_for_serving_again_afterwards(guard: InProcessGuard) -> None:
    layers = guard.guard.cascade.backbone.body.layers
    before = type(layers[0].mlp.gate_proj)
    flops(guard, Sampling(2, temperature=0))
    assert type(layers[0].mlp.gate_proj) is before
