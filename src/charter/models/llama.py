"""A Llama's blocks one after another, for tokens side by side in one row: transformers' layers, without what it does around them.

    for block, x in blocks(body, ids, positions, attend): ...      # x [tokens, width], the residual stream after that block

Who sees whom is `attend`'s business, so a row may hold the tokens of many sequences, at positions of their own. In a step of few
tokens much of transformers' time is its own bookkeeping; `benchmarks/streaming.py` measures such steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Block (from 0), queries [tokens, heads, size], keys and values [tokens, fewer heads, size] to [tokens, heads * size]."""
STEADY = ("default", "linear", "llama3")
"""Rotations that depend on a token's position alone, not on how long its sequence has become."""

BLOCK = 64
"""Tokens whose attention is computed at once: what they can't see of each other is all that is computed in vain."""


def fits(body: Any) -> bool:
    """Whether this transformers model (without its output head) is a Llama whose blocks can be run so."""
    from transformers import LlamaModel

    return type(body) is LlamaModel and getattr(body.rotary_emb, "rope_type", None) in STEADY


def blocks(body: Any, ids: Tensor, positions: Tensor, attend: Attend) -> Iterator[tuple[int, Tensor]]:
    """Number of each block, from 1, and the residual stream after it; `ids` and `positions` are [tokens]."""
    x = body.embed_tokens(ids)
    cos, sin = (turn[0, :, None] for turn in body.rotary_emb(x, positions[None]))
    half = sin.shape[-1] // 2
    sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
    for number, block in enumerate(body.layers):
        attention = block.self_attn
        first, second = siblings(block)
        query, key, value = (made.view(len(x), -1, attention.head_dim) for made in _each(first, _norm(block.input_layernorm, x)))
        turned = _turned(torch.cat((query, key), 1), cos, sin)
        x = x + attention.o_proj(attend(number, turned[:, : query.shape[1]], turned[:, query.shape[1] :], value))
        gate, up = _each(second, _norm(block.post_attention_layernorm, x))
        x = x + block.mlp.down_proj(block.mlp.act_fn(gate) * up)
        yield number + 1, x


def siblings(block: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The layers of a block that read the same input: those before the attention, and those of the feed-forward part."""
    attention = block.self_attn
    return (attention.q_proj, attention.k_proj, attention.v_proj), (block.mlp.gate_proj, block.mlp.up_proj)


def closed(body: Any, x: Tensor) -> Tensor:
    """The norm after the last block."""
    return _norm(body.norm, x)


def attended(query: Tensor, keys: Tensor, values: Tensor, scale: float | None = None) -> Tensor:
    """The last tokens of one sequence attend to all of it: query [heads, tokens, size], keys and values [fewer heads, length, size]."""
    heads, n, size = query.shape
    fewer, length = keys.shape[0], keys.shape[1]
    if n == length:
        return scaled_dot_product_attention(query[None], keys[None], values[None], is_causal=True, scale=scale, enable_gqa=True)[0]
    group = heads // fewer  # heads that share keys are as good as tokens that share them: no copies of keys
    mask = None if n == 1 else torch.ones(n, length, dtype=torch.bool).tril(length - n).repeat(group, 1)
    grouped = query.reshape(1, fewer, group * n, size)
    return scaled_dot_product_attention(grouped, keys[None], values[None], mask, scale=scale).reshape(heads, n, -1)


def by_blocks(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """A whole sequence attends to itself, as in `attended`, with scores and products in its own type.

    In bfloat16 torch's own attention goes without the processor's 16-bit products; of a text of 400 tokens it takes twice as long.
    """
    heads, length, size = query.shape
    fewer = keys.shape[0]
    grouped = (query * size**-0.5).reshape(fewer, -1, length, size)
    future = torch.ones(BLOCK, BLOCK, dtype=torch.bool).triu(1)
    out = torch.empty_like(grouped)
    for start in range(0, length, BLOCK):
        end = min(length, start + BLOCK)
        n = end - start
        scores = torch.bmm(grouped[:, :, start:end].reshape(fewer, -1, size), keys[:, :end].transpose(1, 2)).view(heads, n, end)
        scores[:, :, start:].masked_fill_(future[:n, :n], -torch.inf)
        seen = torch.bmm(scores.softmax(-1).view(fewer, -1, end), values[:, :end])
        out[:, :, start:end] = seen.view(fewer, -1, n, size)
    return out.view(heads, length, size)


def apart(lengths: list[int]) -> Attend:
    """Sequences side by side, each read from its beginning and seeing itself alone."""

    def attend(_block: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = zip(*(torch.split(part.transpose(0, 1), lengths, 1) for part in (query, key, value)), strict=True)
        whole = by_blocks if query.dtype == torch.bfloat16 else attended
        return torch.cat([whole(*row).transpose(0, 1).flatten(1) for row in rows])

    return attend


def _each(layers: Sequence[Any], x: Tensor) -> Sequence[Tensor]:
    """What each layer makes of the same input; one product where they were joined (`halved.join`)."""
    joined = getattr(layers[0], "joined", None)
    return joined(x) if joined else [layer(x) for layer in layers]


def _norm(layer: Any, x: Tensor) -> Tensor:
    return rms_norm(x, layer.weight.shape, layer.weight, layer.variance_epsilon)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: [tokens, heads, size]; the first half of `sin` comes with its sign turned."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
