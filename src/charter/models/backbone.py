"""The small language model whose hidden states the probe reads: whole texts in batches, or one stream with a cache.

Both ways see the same tokens, because text is always encoded segment by segment (`segments`), and hidden states that agree to
about 1e-4. Text from outside never becomes a control token; the marks of the chat format are added apart, by id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from charter.errors import BackboneError
from charter.models import halved, llama, packed
from charter.models.convert import embedded_folder
from charter.models.encoder import Encoder
from charter.models.loading import fingerprint, has_bfloat16, load
from charter.models.threads import alone

CHUNK = 512
"""Tokens of a long text taken in one forward: bounds the memory of an opening prompt."""


class Backbone:
    """A frozen causal model and its encoder; gives the residual stream after chosen blocks."""

    generates = False
    """Whether the whole model is loaded, with the head that names the next token."""

    def __init__(self, name: str = "embedded", layers: Sequence[int] | None = None) -> None:
        """Load the model.

        Args:
            name: "embedded", a folder, or a hub id that transformers loads.
            layers: blocks, counted from 1, whose output is read; all where None. Deeper blocks are not even run.

        Raises:
            BackboneError: it can't be loaded or has no such blocks.
        """
        self.name = name
        source = embedded_folder() if name == "embedded" else name
        model, tokenizer = load(source, "causal model with its output head" if self.generates else "causal model")
        self.encoder, self._tokenizer = Encoder(tokenizer), tokenizer
        body = model.base_model
        blocks = getattr(body, "layers", None)
        if blocks is None:
            raise BackboneError(
                f"{name}: a model of type {type(model).__name__} keeps its blocks elsewhere than in `layers`; choose another backbone"
            )
        self.layers = tuple(layers) if layers is not None else tuple(range(1, len(blocks) + 1))
        if not self.layers or min(self.layers) < 1 or max(self.layers) > len(blocks):
            raise BackboneError(f"{name}: has blocks 1 to {len(blocks)}, not {list(self.layers)}")
        if not self.generates:
            body.layers = blocks[: max(self.layers)]
        self._model, self._body = model, body
        self.plain = llama.fits(body)
        """Whether its blocks can be run by `models.llama`."""
        self._n_weights = sum(p.numel() for p in body.layers.parameters())
        self.fingerprint = fingerprint(body, max(self.layers))
        """Tells one set of weights from another: 16 hex digits, of the blocks that are read from."""
        self.streams: Callable[[], Growing] | None = None
        """How streams are opened, if not by `Stream`."""
        self._few = 0
        self._seen: dict[int, Tensor] = {}
        self._pool: Tensor | None = None
        self._lock = threading.Lock()  # the hooks are shared by conversations in several threads
        for number in self.layers:
            blocks[number - 1].register_forward_hook(self._keep(number))
        self.width = _size(model.config, "hidden_size", name)
        self.context = _size(model.config, "max_position_embeddings", name)

    @property
    def dtype(self) -> str:
        """The type of the weights, "float32" unless `hurry` changed it."""
        return str(next(self._model.parameters()).dtype).removeprefix("torch.")

    @property
    def flops_per_token(self) -> float:
        """2 FLOPs a weight of the blocks that are run; attention over the context and the norms are left out."""
        return 2.0 * float(self._n_weights)

    @torch.inference_mode()
    def batch(self, rows: Sequence[Sequence[int]], pool: Tensor | None = None) -> Tensor:
        """Hidden states of whole token sequences, padded on the right: float [rows, tokens, layers, width].

        Padding can't reach real tokens: attention looks back only.

        Args:
            pool: float [pooled, rows * tokens]; where given, each layer's states are multiplied with it as soon as they are there,
                and the result is [pooled, layers, width]. The full states of all layers then never stand in memory at once.
        """
        longest = max(len(row) for row in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
        return self._states(pool, input_ids=ids, use_cache=False)

    @torch.inference_mode()
    def side_by_side(self, ids: Tensor, positions: Tensor, attend: llama.Attend) -> Tensor:
        """Hidden states of tokens in one row, [tokens], of a `plain` backbone: float [tokens, layers, width]."""
        out = torch.empty(len(ids), len(self.layers), self.width)
        for number, x in llama.blocks(self._body, ids, positions, attend):
            if number in self.layers:
                out[:, self.layers.index(number)] = x
        return out

    @torch.inference_mode()
    def apart(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Hidden states of whole token sequences, float [tokens, layers, width] each; side by side where the model is `plain`, else padded."""
        lengths = [len(row) for row in rows]
        if not self.plain:
            return [own[:n] for own, n in zip(self.batch(rows), lengths, strict=True)]
        positions = torch.cat([torch.arange(n) for n in lengths])
        states = self.side_by_side(torch.tensor([i for row in rows for i in row]), positions, llama.apart(lengths))
        return list(torch.split(states, lengths))

    def hurry(self) -> bool:
        """Go over to bfloat16 where the processor has instructions for it; returns whether it did.

        It is twice as fast there, and several times slower elsewhere. For training only: logits move by about 1 % of their spread
        (0.03 of 2.4 on average, 0.12 at most, over 300 texts), which a fit and a threshold don't notice, and the equality of streamed
        and batched scores would.
        """
        able = has_bfloat16()
        if able:
            packed.unpack(self._body.layers)
            self._model.to(torch.bfloat16)
        return able

    def pack(self) -> bool:
        """Lay the weights out for serving (`models.packed`); returns whether the states came out the same, else nothing has changed."""
        if not packed.able():
            return False
        before = self.batch([range(16)])
        packed.pack(self._body.layers)
        try:
            same = bool(((self.batch([range(16)]) - before).norm(dim=-1) <= 1e-3 * before.norm(dim=-1)).all())
        except (AttributeError, RuntimeError):  # a model that looks at its layers' weights, or a torch without the operators
            self._seen.clear()
            same = False
        if not same:
            packed.unpack(self._body.layers)
        return same

    def halve(self) -> bool:
        """Round the packed weights to float16, so that steps of few tokens read half of the bytes (`models.halved`).

        Returns:
            Whether it could: after `pack`, with a torch that has the product.
        """
        if not (halved.able() and packed.children(self._body.layers, packed.PackedLinear)):
            return False
        halved.halve(self._body.layers)
        if self.plain and not self.generates:  # a model that generates runs transformers' blocks, one layer at a time
            for block in self._body.layers:
                for layers in llama.siblings(block):
                    halved.join(layers)
        self._few = halved.FEW
        return True

    def step(self, tokens: int) -> AbstractContextManager[object]:
        """Within `with` a step of so many tokens may be run, on as many threads as suit it: one where it reads 16-bit weights."""
        return alone() if tokens <= self._few else nullcontext()

    def stream(self) -> Growing:
        """A new, empty stream; where `batcher.gather` was called, one that shares its forwards with others."""
        return self.streams() if self.streams else Stream(self)

    @property
    def body(self) -> Any:
        """The transformers model without its output head."""
        return self._body

    def _keep(self, number: int) -> Any:
        def hook(_module: object, _inputs: object, output: Any) -> None:
            states: Tensor = output[0] if isinstance(output, tuple) else output
            if not isinstance(states, Tensor) or states.shape[-1] != self.width:
                raise BackboneError(f"{self.name}: block {number} gives no hidden states of width {self.width}; choose another backbone")
            states = states.float()
            self._seen[number] = states if self._pool is None else self._pool @ states.flatten(0, 1)

        return hook

    def _states(self, pool: Tensor | None, **inputs: Any) -> Tensor:
        return self._run(pool, **inputs)[0]

    def _run(self, pool: Tensor | None, model: Any = None, **inputs: Any) -> tuple[Tensor, Any]:
        """The states of one forward, and what the model itself made of it; `model` is one with the same blocks."""
        with self._lock:
            self._pool = pool
            output = (model or self._model)(**inputs)
            if missing := set(self.layers) - set(self._seen):
                raise BackboneError(f"{self.name}: gives no hidden states after block {min(missing)}; choose another backbone")
            states = torch.stack([self._seen[number] for number in self.layers], dim=-2)
            self._seen.clear()
            return states, output


class Growing(Protocol):
    """A token sequence that tokens are appended to."""

    @property
    def length(self) -> int:
        """Tokens so far."""
        ...

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Append tokens; returns their hidden states, float [tokens, layers, width].

        Raises:
            BackboneError: the context would overflow. Nothing is ever cut silently.
        """
        ...


class Stream:
    """One growing token sequence with its key-value cache: no token is computed twice."""

    def __init__(self, backbone: Backbone) -> None:
        from transformers import DynamicCache

        self._backbone = backbone
        self._cache = DynamicCache()
        self.length = 0

    @torch.inference_mode()
    def feed(self, ids: Sequence[int]) -> Tensor:
        """Append tokens; returns their hidden states, float [tokens, layers, width].

        Raises:
            BackboneError: the context would overflow. Nothing is ever cut silently.
        """
        backbone = self._backbone
        if self.length + len(ids) > backbone.context:
            raise BackboneError(f"the conversation is longer than the backbone's context of {backbone.context:,} tokens")
        states = []
        for start in range(0, len(ids), CHUNK):
            chunk = torch.tensor([list(ids[start : start + CHUNK])], dtype=torch.long)
            with backbone.step(chunk.shape[1]):
                states.append(backbone._states(None, input_ids=chunk, past_key_values=self._cache, use_cache=True)[0])
            self.length += chunk.shape[1]
        return torch.cat(states)


def _size(config: Any, name: str, model: str) -> int:
    """A number of the model's configuration.

    Raises:
        BackboneError: it is not there.
    """
    value = getattr(config, name, None)
    if not isinstance(value, int) or value < 1:
        raise BackboneError(f"{model}: its configuration has no {name}, so Charter can't read its hidden states; choose another backbone")
    return value
