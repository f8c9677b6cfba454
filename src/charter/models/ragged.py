"""One forward for many streams: their tokens side by side in one row, each attending to its own stream's keys alone.

    states = ragged(backbone, [(keys_a, [17, 4]), (keys_b, [92])])      # float [3, layers, width]

The weights are read once for all streams, which is what a step of a few tokens costs; nothing is padded. Positions go by stream.
A Llama's blocks are run by `models.llama`. For other models the attention is transformers' own hook (`ALL_ATTENTION_FUNCTIONS`), so
every one that takes it, and masks nothing but the future, is served: `fits` says whether a backbone does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from charter.errors import BackboneError, Unavailable
from charter.models.backbone import Backbone
from charter.models.llama import attended

NAME = "charter_ragged"
BLOCK = 64
"""Positions by which a stream's memory grows at the least; by a half of itself beyond."""
Rows = Sequence[tuple["Keys", Sequence[int]]]


class MemoryFull(Unavailable):
    """The streams that are open hold as much memory as they may; the one that asked for more can't go on."""


class Memory:
    """What all streams of a backbone hold, in bytes; at most `most`."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0
        self._lock = threading.RLock()  # a stream may be collected, and give back, while this thread takes

    def take(self, n: int) -> None:
        """Raises: MemoryFull."""
        with self._lock:
            if n > 0 and self.held + n > self.most:
                raise MemoryFull(
                    f"open streams hold {self.held / 2**20:,.0f} MiB of the {self.most / 2**20:,.0f} MiB they may; try again later"
                )
            self.held += n


class Keys:
    """A stream's keys and values: for each block a tensor [2, heads, capacity, size], filled up to `length`."""

    def __init__(self, memory: Memory) -> None:
        self.length = 0
        self._memory = memory
        self._blocks: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        return sum(block.nbytes for block in self._blocks.values())

    def put(self, block: int, keys: Tensor, values: Tensor) -> Tensor:
        """Write what follows `length`, [heads, tokens, size] each; returns all, [2, heads, length + tokens, size].

        Raises:
            MemoryFull: nothing is written.
        """
        end = self.length + keys.shape[1]
        stored = self._blocks.get(block)
        if stored is None or stored.shape[2] < end:
            stored = self._grown(block, end, keys)
        stored[0, :, self.length : end] = keys
        stored[1, :, self.length : end] = values
        return stored[:, :, :end]

    def _grown(self, block: int, end: int, like: Tensor) -> Tensor:
        old = self._blocks.get(block)
        capacity = max(end, self.length * 3 // 2)
        capacity = -(-capacity // BLOCK) * BLOCK
        heads, _, size = like.shape
        self._memory.take(2 * heads * capacity * size * like.element_size() - (0 if old is None else old.nbytes))
        new = like.new_empty(2, heads, capacity, size)
        if old is not None:
            new[:, :, : self.length] = old[:, :, : self.length]
        self._blocks[block] = new
        return new

    def copy(self) -> Keys:
        """The same keys for a stream that goes on by itself.

        Raises:
            MemoryFull: there is no room for it.
        """
        twin = Keys(self._memory)
        twin._memory.take(self.bytes)
        twin.length, twin._blocks = self.length, {number: block.clone() for number, block in self._blocks.items()}
        return twin

    def __del__(self) -> None:
        self._memory.take(-self.bytes)


def fits(backbone: Backbone) -> bool:
    """Whether this model's attention can be taken over: one that sees all of the past and adds nothing of its own to the scores."""
    model, config = backbone.body, backbone.body.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    plain = config._attn_implementation in ("sdpa", NAME) and getattr(config, "attn_logit_softcapping", None) is None
    return bool(getattr(model, "_supports_attention_backend", False)) and plain and kinds == {"full_attention"} and not windowed


def prepare(backbone: Backbone) -> None:
    """Put the attention of this file in the place of torch's; other forwards of the backbone go on as before.

    Raises:
        BackboneError: the model doesn't fit.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if not fits(backbone):
        raise BackboneError(f"{backbone.name}: its attention has ways of its own, so its streams can't share a forward")
    ALL_ATTENTION_FUNCTIONS.register(NAME, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    backbone.body.config._attn_implementation = NAME


@torch.inference_mode()
def ragged(backbone: Backbone, rows: Rows) -> Tensor:
    """Append tokens to streams, each stream once; returns their states in the order of the rows, float [all tokens, layers, width].

    Raises:
        MemoryFull: no stream has changed.
    """
    ids = torch.tensor([i for _, own in rows for i in own])
    positions = torch.cat([torch.arange(keys.length, keys.length + len(own)) for keys, own in rows])
    with backbone.step(len(ids)):
        if backbone.plain:
            states = backbone.side_by_side(ids, positions, lambda block, *parts: _attend(rows, block, *parts))
        else:
            nothing = torch.empty(1, 1, 1, 1)  # a mask of four dimensions is left alone: the rows say who sees whom
            states = backbone._states(
                None, input_ids=ids[None], position_ids=positions[None], attention_mask=nothing, use_cache=False, charter_rows=rows
            )[0]  # fmt: skip
    for keys, own in rows:
        keys.length += len(own)
    return states


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, charter_rows: Rows | None = None, **more: Any
) -> tuple[Tensor, None]:
    """In a block's place for attention: query [1, heads, tokens, size], key and value [1, fewer heads, tokens, size]."""
    if charter_rows is None:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        plain: tuple[Tensor, None] = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **more)
        return plain
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    out = _attend(charter_rows, module.layer_idx, query, key, value, more.get("scaling"))
    return out.reshape(1, *query.shape), None


def _attend(rows: Rows, block: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Each stream's tokens over its own keys: [tokens, heads, size] in, [tokens, heads * size] out."""
    query, key, value = (part.transpose(0, 1) for part in (query, key, value))
    out = []
    at = 0
    for keys, own in rows:
        here = slice(at, at := at + len(own))
        stored = keys.put(block, key[:, here], value[:, here])
        out.append(attended(query[:, here], stored[0], stored[1], scale).transpose(0, 1).flatten(1))
    return torch.cat(out)
