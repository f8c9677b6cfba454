"""One forward for many streams: their tokens side by side in one row, each attending to its own stream's keys alone.

    states = ragged(backbone, [(keys_a, [17, 4]), (keys_b, [92])])      # float [3, layers, width]

The weights are read once for all streams, which is what a step of a few tokens costs; nothing is padded. Positions go by stream.
The attention is transformers' own hook (`ALL_ATTENTION_FUNCTIONS`), so every model that takes it, and masks nothing but the future,
is served: `fits` says whether a backbone does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from charter.errors import BackboneError, Unavailable
from charter.models.backbone import Backbone

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
    ids = torch.tensor([[i for _, own in rows for i in own]], dtype=torch.long)
    positions = torch.cat([torch.arange(keys.length, keys.length + len(own)) for keys, own in rows])[None]
    nothing = torch.empty(1, 1, 1, 1)  # a mask of four dimensions is left alone: the rows say who sees whom
    states = backbone._states(
        None, input_ids=ids, position_ids=positions, attention_mask=nothing, use_cache=False, charter_rows=rows
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
    out = torch.empty(query.shape[2], query.shape[1], value.shape[-1], dtype=query.dtype)
    at = 0
    for keys, own in charter_rows:
        here = slice(at, at := at + len(own))
        stored = keys.put(module.layer_idx, key[0, :, here], value[0, :, here])
        out[here] = _attended(query[0, :, here], stored, more.get("scaling")).transpose(0, 1)
    return out[None], None


def _attended(query: Tensor, stored: Tensor, scale: float | None) -> Tensor:
    """One stream's attention: query [heads, tokens, size] over keys and values [2, fewer heads, length, size]."""
    heads, n, size = query.shape
    fewer, length = stored.shape[1], stored.shape[2]
    keys, values = stored[0][None], stored[1][None]
    if n == 1:  # heads that share keys are as good as tokens that share them: no mask, no copies of keys
        grouped = scaled_dot_product_attention(query.reshape(1, fewer, heads // fewer, size), keys, values, scale=scale)
        return grouped.reshape(heads, 1, -1)
    mask = None if length == n else torch.ones(n, length, dtype=torch.bool).tril(length - n)
    return scaled_dot_product_attention(query[None], keys, values, mask, is_causal=mask is None, scale=scale, enable_gqa=True)[0]
