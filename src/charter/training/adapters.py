"""Low-rank adapters on the last blocks of a model, as peft sets them up: what a value head, refusal tokens and a sentence encoder train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from charter.errors import MissingExtra

ALPHA = 2.0
"""The factor on an adapter's product (peft's lora_alpha / rank)."""


def adapters(model: Any, first: int, rank: int, seed: int, blocks: str = "layers") -> dict[str, dict[str, nn.Parameter]]:
    """Put adapters on every linear map of the blocks from `first`; gives their factors by module, `NAME.a` and `NAME.b`.

    Args:
        blocks: the name of the model's list of blocks.

    Raises:
        MissingExtra: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtra("adapters need peft: pip install 'charter[train]'") from error
    names = [
        f"{blocks}.{number}.{name}"
        for number, block in enumerate(model.get_submodule(blocks))
        if number >= first
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=round(ALPHA * rank), target_modules=names), model)
    modules = {name: model.get_submodule(name) for name in names}
    return {
        name: {f"{name}.a": module.lora_A["default"].weight, f"{name}.b": module.lora_B["default"].weight}
        for name, module in modules.items()
    }


@torch.no_grad()
def stored(factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Factors as they are kept, float16: the product of `NAME.b` and `NAME.a` is what is added to a weight, ALPHA included."""
    return {name: (p.detach().cpu() * (ALPHA if name.endswith(".b") else 1)).half().contiguous() for name, p in factors.items()}
