"""The part of a backbone that is trained: its last blocks and the heads. The frozen blocks below are run apart, without gradient.

Which blocks are which is settled by exchanging the model's list of blocks. Not every model bears that (some scale their embeddings
on the way in), so it is tried on real tokens first; where the result differs, all blocks are run each time, the frozen ones
still without gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from charter.errors import BackboneError
from charter.models.convert import embedded_folder
from charter.models.value_head import FinalBackbone, Tuned, TunedRecord
from charter.records import View
from charter.training.adapters import ALPHA, adapters
from charter.training.rows import squeeze

SPLIT_TOLERANCE = 0.05
"""Mean difference, in standard deviations of a unit, up to which running the blocks in two parts is the same as in one."""


class Tower(nn.Module):
    """The trained blocks and heads. What is frozen and run apart is no part of this module: it is neither saved nor synchronised."""

    mean: Tensor
    scale: Tensor

    def __init__(self, backbone: FinalBackbone, blocks: int, rank: int, views: tuple[View, ...], heads: int, seed: int) -> None:
        """Prepare the last `blocks` blocks of a backbone, which is changed by it and no longer fit for other use.

        Args:
            rank: of the adapters on every linear map of those blocks; 0 trains all their weights instead.

        Raises:
            BackboneError: it has fewer blocks.
            MissingExtra: peft is not installed.
        """
        super().__init__()
        if not 1 <= blocks <= backbone.depth:
            raise BackboneError(f"{backbone.name}: {backbone.depth} blocks are run, so 1 to {backbone.depth} can be trained, not {blocks}")
        self._fingerprint, self._name, self._depth, self._blocks = backbone.fingerprint, backbone.name, backbone.depth, blocks
        self.views = views
        self.model = backbone.model
        first = backbone.depth - blocks
        self._trained = adapters(self.model, first, rank, seed) if rank else _whole(self.model, first)
        self._stacks = [self.model.layers[:first], self.model.layers[first:], self.model.layers]
        self.split = False
        self.most = 4_096
        """Tokens, padding included, in one forward."""
        self.weight = nn.Parameter(torch.zeros(len(views), heads, backbone.width))
        self.bias = nn.Parameter(torch.zeros(len(views), heads))
        self.register_buffer("mean", torch.zeros(backbone.width))
        self.register_buffer("scale", torch.ones(backbone.width))

    def forward(self, inputs: Tensor, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        """Logits [rows, tokens, heads], each row's by its view's heads, and the last hidden states [rows, tokens, width].

        Args:
            inputs: token ids int [rows, tokens], or the states that `lower` gives, [rows, tokens, width].
        """
        parts = self._parts(inputs)
        # What is too much for one forward keeps no activations: each part is run again in the backward pass.
        finals = [self._final(parts[0])] if len(parts) == 1 else [checkpoint(self._final, part, use_reentrant=False) for part in parts]
        final = torch.cat(finals)
        own = torch.tensor([self.views.index(view) for view in views], device=final.device)
        standard = (final - self.mean) / self.scale
        return torch.baddbmm(self.bias.index_select(0, own)[:, None], standard, self.weight.index_select(0, own).transpose(1, 2)), final

    def _parts(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Rows that are run together: all of them, or as many as have `most` tokens."""
        return torch.split(inputs, max(1, self.most // inputs.shape[1]))

    def _final(self, inputs: Tensor) -> Tensor:
        """Last hidden states [rows, tokens, width] of what `forward` takes."""
        named = {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}
        final: Tensor = self.model(**named, use_cache=False).last_hidden_state.float()
        return final

    @torch.no_grad()
    def lower(self, ids: Tensor) -> Tensor:
        """What the frozen blocks make of token ids: states [rows, tokens, width]."""
        caught: list[Tensor] = []
        frozen, upper = self._stacks[0], self.model.layers
        hook = frozen[-1].register_forward_hook(lambda _m, _i, out: caught.append(out[0] if isinstance(out, tuple) else out))
        try:
            self.model.layers = frozen
            for part in self._parts(ids):
                self.model(input_ids=part, use_cache=False)
        finally:
            self.model.layers = upper
            hook.remove()
        return torch.cat(caught)

    @torch.no_grad()
    def try_split(self, ids: Tensor) -> bool:
        """Run frozen and trained blocks apart from now on, if that gives the same on these ids; returns whether it does."""
        frozen, upper, whole = self._stacks
        if not len(frozen):
            return False
        expected = self.model(input_ids=ids, use_cache=False).last_hidden_state.float()
        states = squeeze(self.lower(ids)).float()
        self.model.layers = upper
        found = self.model(inputs_embeds=states, use_cache=False).last_hidden_state.float()
        spread = expected.flatten(0, 1).std(0).mean()
        self.split = bool((found - expected).abs().mean() <= SPLIT_TOLERANCE * spread)
        if not self.split:
            self.model.layers = whole
        return self.split

    def place(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move everything to a device; what is frozen goes over to `dtype`, what is trained stays float32."""
        self.to(device)
        for stack in self._stacks:
            stack.to(device)
        for parameter in [*self.model.parameters(), *self._stacks[2].parameters()]:
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(dtype)

    def recompute(self) -> None:
        """Keep no activations of the blocks: they are computed again in the backward pass."""
        newer = getattr(self.model, "activation_checkpointing_enable", None)  # the older name goes away with transformers 6
        (newer or self.model.gradient_checkpointing_enable)({"use_reentrant": False})

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by a name that doesn't depend on how blocks are split."""
        return {**{name: p for _, own in self._trained.items() for name, p in own.items()}, "weight": self.weight, "bias": self.bias}

    @torch.no_grad()
    def export(self, clauses: tuple[str, ...]) -> Tuned:
        """What was learned, as data; the change in float16, and the standardisation folded into the heads."""
        tensors: dict[str, Tensor] = {}
        for module, own in self._trained.items():
            for name, parameter in own.items():
                tensors[name] = parameter.detach().cpu().clone()
            if f"{module}.b" in tensors:
                tensors[f"{module}.b"] *= ALPHA
        tensors = {name: tensor.half().contiguous() for name, tensor in tensors.items()}
        for number, view in enumerate(self.views):
            weight = (self.weight[number] / self.scale).cpu()
            tensors[f"head.{view}.weight"] = weight
            tensors[f"head.{view}.bias"] = (self.bias[number].cpu() - weight @ self.mean.cpu()).clone()
        record = TunedRecord(backbone=self._name, fingerprint=self._fingerprint, depth=self._depth, blocks=self._blocks, clauses=clauses)
        return Tuned(record, tensors)


def unembedding(backbone: FinalBackbone) -> Tensor:
    """The matrix [vocabulary, width] that turns last hidden states into next-token logits.

    Raises:
        BackboneError: the model was saved without one.
    """
    from transformers import AutoModelForCausalLM

    weight: Tensor
    if backbone.model.config.tie_word_embeddings:
        weight = backbone.model.get_input_embeddings().weight
        return weight.detach()
    source = embedded_folder() if backbone.name == "embedded" else backbone.name
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    model, found = loaded
    if any("lm_head" in name for name in found["missing_keys"]) or model.get_output_embeddings() is None:
        raise BackboneError(f"{backbone.name}: was saved without its output head, which the next-token loss needs; set its weight to 0")
    weight = model.get_output_embeddings().weight
    return weight.detach()


def _whole(model: Any, first: int) -> dict[str, dict[str, nn.Parameter]]:
    """All weights of the blocks from `first`, made trainable."""
    own = {f"layers.{n}.{name}": p for n, block in enumerate(model.layers) if n >= first for name, p in block.named_parameters()}
    for parameter in own.values():
        parameter.requires_grad_(True)
    return {"": own}
