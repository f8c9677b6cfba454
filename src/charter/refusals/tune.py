"""Train refusal tokens: low-rank adapters on the last blocks, and a drawn row a mark. Everything else of the model stays as it is.

A row of training is the conversation, the mark in the place of the reply's first token, then how the reply begins. The loss is the
cross-entropy of the mark over the vocabulary and all marks, plus that of the reply's tokens. (The paper takes the mean over all tokens, in
which the mark is one of many; apart, it is learned from a few hundred rows.) A row's prompt may not call for its mark: there the reply alone
is learned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from charter.errors import BackboneError, DataError
from charter.models.generation import Generator
from charter.models.loading import has_bfloat16
from charter.models.refusal_tokens import ROWS, RefusalTokens, TokensRecord
from charter.refusals.tokens import Row
from charter.training.adapters import adapters, stored

WARM_UP = 0.1
POOL = 16
"""Batches whose rows are sorted by the lengths of their prompts together: little is padding, and answers meet refusals."""
Encoded = tuple[list[int], int, bool]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a training run may be told."""

    backbone: str = "embedded"
    """embedded, a folder, or a hub id."""
    blocks: int = 8
    """Blocks that get adapters, the last ones; 0 for all."""
    rank: int = 16
    epochs: int = 3
    lr: float = 1e-3
    batch: int = 8
    """Rows a step."""
    longest: int = 256
    """Tokens beyond which a row is left out, and counted."""
    opening: int = 24
    """Tokens of a reply that are learned: how it begins tells whether it refuses."""
    seed: int = 0


def train(
    rows: Sequence[Row], marks: tuple[str, ...], options: Options | None = None, progress: Progress = lambda *_: None
) -> RefusalTokens:
    """Train refusal tokens; on a GPU where there is one.

    Raises:
        DataError: no row is short enough, or the loss is not finite.
        BackboneError: the model can't be loaded, can't chat, or has fewer blocks.
        MissingExtra: peft is not installed.
    """
    options = options or Options()
    model = Generator(options.backbone)
    trainer = _Trainer(model, marks, options)
    encoded = [(trainer.encode(row), row) for row in rows]
    kept = [(ids, row) for ids, row in encoded if len(ids[0]) <= min(options.longest, model.context)]
    if not kept:
        raise DataError(f"none of the {len(rows):,} rows has at most {options.longest} tokens; train on shorter ones")
    steps = trainer.run([ids for ids, _ in kept], progress)
    counts = Counter(marks[row.mark] for _, row in kept if row.chosen)
    record = TokensRecord(
        backbone=options.backbone, fingerprint=model.fingerprint, marks=marks, steps=steps, seed=options.seed,
        rows={mark: counts[mark] for mark in marks} | {"shown": sum(not row.chosen for _, row in kept), "left out": len(rows) - len(kept)},
    )  # fmt: skip
    return RefusalTokens(record, trainer.export())


class _Trainer:
    """The model, its adapters and the rows of the marks."""

    def __init__(self, model: Generator, marks: tuple[str, ...], options: Options) -> None:
        self._model, self._marks, self._options = model, marks, options
        self._body, whole = model.body, model._model
        depth = len(self._body.layers)
        blocks = options.blocks or depth
        if not 1 <= blocks <= depth:
            raise BackboneError(f"{model.name}: has {depth} blocks, so 1 to {depth} can get adapters, not {blocks}")
        for block in self._body.layers:
            block._forward_hooks.clear()  # nobody reads along, and states without gradient would be of no use
        inputs, outputs = (end.weight.detach() for end in (whole.get_input_embeddings(), whole.get_output_embeddings()))
        self._inputs, self._outputs = inputs, outputs
        self._vocabulary = len(inputs)
        self.rows = _drawn(inputs.float(), len(marks), options.seed)
        self._first = depth - blocks
        found = adapters(self._body, depth - blocks, options.rank, options.seed)
        self._factors = {name: factor for own in found.values() for name, factor in own.items()}
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._half = self._device.type == "cuda" or has_bfloat16()

    def encode(self, row: Row) -> Encoded:
        """Ids of the prompt, the mark and the reply with the mark that ends it; where the reply's mark stands; whether it is to be learned."""
        pieces, opening = self._model.chat.turns(row.prompt)
        ids = [i for turn in pieces for p in turn for i in p.ids] + opening
        said = [*self._model.encoder._plain(row.reply), *self._model.chat.ending][: self._options.opening]
        return [*ids, self._vocabulary + row.mark, *said], len(ids), row.chosen

    def run(self, rows: Sequence[Encoded], progress: Progress) -> int:
        """All steps; returns how many."""
        options = self._options
        batches = [b for epoch in range(options.epochs) for b in _batches([at for _, at, _ in rows], options.batch, options.seed, epoch)]
        self._model._model.to(self._device)
        self.rows, self._inputs, self._outputs = (t.to(self._device) for t in (self.rows, self._inputs, self._outputs))
        parameters = list(self._factors.values())
        optimizer = torch.optim.AdamW(parameters, lr=options.lr, weight_decay=0.01, betas=(0.9, 0.98))
        states = self._below([ids for ids, *_ in rows], progress)
        for step, numbers in enumerate(batches):
            rate = options.lr * min(1.0, (step + 1) / max(1, WARM_UP * len(batches)), 1.1 - step / len(batches))
            optimizer.param_groups[0]["lr"] = rate
            loss = self._loss([rows[n] for n in numbers], [states[n] for n in numbers])
            if not torch.isfinite(loss):
                raise DataError(f"refusal tokens: the loss of step {step + 1:,} of {len(batches):,} is not finite; lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            progress("refusal tokens", step + 1, len(batches))
        return len(batches)

    @torch.no_grad()
    def _below(self, rows: Sequence[list[int]], progress: Progress) -> list[Tensor]:
        """What enters the first block with adapters, a row [tokens, width]. Nothing below it changes, so this is read once, not every epoch."""
        found: list[Tensor] = []
        blocks, words = list(self._body.layers), torch.cat([self._inputs, self.rows])
        forwards = [block.forward for block in blocks]
        for block in blocks[self._first :]:
            block.forward = _through
        reading = blocks[self._first].register_forward_pre_hook(lambda _, given: found.append(given[0][0].bfloat16()))
        for number, ids in enumerate(rows, 1):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
                self._body(inputs_embeds=words[torch.tensor(ids, device=self._device)][None], use_cache=False)
            progress("reading", number, len(rows))
        reading.remove()
        for number, (block, forward) in enumerate(zip(blocks, forwards, strict=True)):
            block.forward = _through if number < self._first else forward
        blocks[self._first].register_forward_pre_hook(lambda _, given: (self._states, *given[1:]))
        return found

    def _loss(self, rows: Sequence[Encoded], states: Sequence[Tensor]) -> Tensor:
        """Cross-entropy of the marks over vocabulary and marks, plus that of the replies' tokens over the vocabulary."""
        self._states = nn.utils.rnn.pad_sequence(list(states), batch_first=True).float()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            last = self._body(inputs_embeds=self._states, use_cache=False).last_hidden_state
            places = torch.tensor([at for _, at, _ in rows], device=self._device)
            opening = last[torch.arange(len(rows)), places - 1]
            marks = torch.cat([opening @ self._outputs.T, opening @ self.rows.T], -1)
            at, following = _following(rows, self._device)
            replies = last[at[0], at[1]] @ self._outputs.T
        ids = torch.tensor([own[at] for own, at, _ in rows], device=self._device)
        called = torch.tensor([chosen for *_, chosen in rows], device=self._device)
        chosen = cross_entropy(marks.float(), ids, reduction="none")[called].sum() / called.sum().clamp(min=1)
        return chosen + cross_entropy(replies.float(), following)

    @torch.no_grad()
    def export(self) -> dict[str, Tensor]:
        """What was learned: the factors in float16, the rows as they are."""
        return stored(self._factors) | {ROWS: self.rows.cpu().float().contiguous()}


def _drawn(words: Tensor, marks: int, seed: int) -> Tensor:
    """Rows [marks, width]: the mean word and a drawn step from it, as long as a word's. They stay; the adapters learn what they mean.

    A mark that began as a word would be carried on as that word ("respond to the user's request").
    """
    mean = words.mean(0)
    drawn = torch.randn(marks, words.shape[1], generator=torch.Generator().manual_seed(seed)).to(words)
    found: Tensor = mean + drawn / drawn.norm(dim=1, keepdim=True) * (words - mean).norm(dim=1).mean()
    return found


def _through(states: Tensor, *_: object, **__: object) -> Tensor:
    """In the place of a block that has nothing to do."""
    return states


def _following(rows: Sequence[Encoded], device: torch.device) -> tuple[Tensor, Tensor]:
    """Places (row, position) from the mark on, int [2, tokens], and the ids that follow there."""
    places = [(number, at) for number, (ids, mark, _) in enumerate(rows) for at in range(mark, len(ids) - 1)]
    following = [rows[number][0][at + 1] for number, at in places]
    return torch.tensor(places, device=device).T, torch.tensor(following, device=device)


def _batches(lengths: Sequence[int], size: int, seed: int, epoch: int) -> list[list[int]]:
    """Rows by batch in a drawn order, those of a batch alike in length."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    pools = [sorted(order[start : start + size * POOL].tolist(), key=lengths.__getitem__) for start in range(0, len(order), size * POOL)]
    batches = [pool[start : start + size] for pool in pools for start in range(0, len(pool), size)]
    return [batches[n] for n in rng.permutation(len(batches))]
