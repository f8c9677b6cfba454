"""Train a value head: rows, tower, schedule, steps, export. `fit_value_head` reads as that list.

Each step: the frozen blocks (once a row, then from the disk), the trained blocks with gradient, the loss of every token against the
annealed running maximum, and a little of the next-token loss, which keeps the backbone a language model. The same code runs as one
process or as several under `torchrun` (one batch each a step, gradients averaged), on a GPU where there is one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from charter.errors import DataError, MissingExtra
from charter.models.loading import has_bfloat16
from charter.models.value_head import FinalBackbone, Tuned
from charter.training.checkpoint import Checkpoint
from charter.training.losses import annealed_cummax
from charter.training.pieces import CONTEXT
from charter.training.rows import Batch, LowerStates, Row, collate, digest, rows_of, schedule
from charter.training.table import Table
from charter.training.tower import Tower, unembedding

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises; then it falls linearly to nothing."""
HEAD_RATE = 3.0
"""The heads' learning rate, as a multiple of the blocks': they start at zero on standardised inputs."""
LARGEST_GRADIENT = 1.0
"""Norm to which gradients are cut."""
NEXT_TOKENS = 256
"""Tokens a batch at which the next-token loss is taken, drawn anew each step: all of them would cost as much as the rest."""
STANDARDISED_ON = 16
"""Batches from which mean and spread of the hidden units are taken before training."""
STORE_BYTES = 8 << 30
"""Largest store of the frozen blocks' states, 8 GiB; beyond it they are run in every epoch."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a training run may be told."""

    backbone: str = "embedded"
    """embedded, a folder, or a hub id."""
    depth: int | None = None
    """Blocks of the backbone that are run; all where None. The next-token loss needs all."""
    blocks: int = 6
    """Blocks that are trained, the last of those run; 0 for all."""
    rank: int = 16
    """Of the adapters; 0 trains all weights of those blocks."""
    epochs: int = 3
    lr: float = 5e-4
    """Highest learning rate of the blocks."""
    next_token: float = 0.1
    """Weight of the next-token loss (lambda of the paper, which does not give it)."""
    batch_tokens: int = 4_096
    """Tokens of a batch with its padding, in each process. A long exchange may come to more: its pieces are run so many at a time."""
    max_steps: int | None = None
    """Steps after which the run ends, annealing and learning rate included; None for all epochs."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on a GPU and on processors with instructions for it."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    save_every: int = 100
    """Steps from one checkpoint to the next."""


Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""


def fit_value_head(tables: Sequence[Table], folder: Path, options: Options | None = None, progress: Progress = lambda *_: None) -> Tuned:
    """Train a value head on the rows of all tables, one for each view; called again after a kill, it goes on.

    Args:
        tables: training tables with the same clauses; those of both views train the same blocks.
        folder: where checkpoint, log (log.jsonl, a line a step) and the frozen blocks' states are kept while it runs.

    Raises:
        DataError: there are no rows, the folder holds another run, or the loss is not finite.
        BackboneError: the backbone can't be loaded or has too few blocks.
        MissingExtra: accelerate or peft is not installed.
    """
    options = options or Options()
    accelerator = _accelerator()
    backbone = FinalBackbone(options.backbone, options.depth)
    options = _settled(options, backbone, accelerator.device)
    clauses = _clauses(tables)
    rows, long = rows_of(tables, backbone.encoder, min(CONTEXT, backbone.context))
    run = digest(rows, asdict(replace(options, save_every=0, backbone="")), backbone.fingerprint, accelerator.num_processes)
    checkpoint = Checkpoint(folder, run)
    trainer = _Trainer(rows, backbone, 1 + len(clauses), options, accelerator, checkpoint, folder / f"lower-{run}.f16")
    trainer.run(progress, long)
    return trainer.tower.export(clauses)


class _Trainer:
    """One run: everything that a step needs, and nothing that a checkpoint lacks."""

    def __init__(
        self,
        rows: Sequence[Row],
        backbone: FinalBackbone,
        heads: int,
        options: Options,
        accelerator: Any,
        checkpoint: Checkpoint,
        store: Path,
    ) -> None:
        self.rows, self.options, self.accelerator, self.checkpoint = rows, options, accelerator, checkpoint
        known = ("prompt", "exchange", "reply")
        views = tuple(view for view in known if any(row.view == view for row in rows))
        lengths = [len(row.ids) for row in rows]
        self.batches = schedule(lengths, options.batch_tokens, options.epochs, options.seed, [row.exchange for row in rows])
        # Each process takes one batch a step; the last step starts over where batches run out.
        all_steps = -(-len(self.batches) // accelerator.num_processes)
        self.steps: int = min(all_steps, options.max_steps or all_steps)
        self.unembedding = unembedding(backbone) if options.next_token else None
        self.tower = Tower(backbone, options.blocks, options.rank, views, heads, options.seed)  # type: ignore[arg-type]
        self.tower.most = options.batch_tokens
        self.dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.tower.place(accelerator.device, self.dtype)
        self.tower.eval()
        if self.unembedding is not None:
            self.unembedding = self.unembedding.to(accelerator.device, self.dtype)
        trial = self.batches[int(np.argmin([len(batch) for batch in self.batches]))][:2]
        with self._autocast():
            self.tower.try_split(collate(rows, trial).ids.to(accelerator.device))
        again = options.epochs > 1 and accelerator.num_processes == 1
        fits = sum(lengths) * backbone.width * 2 <= STORE_BYTES
        self.store = LowerStates(store, lengths, backbone.width) if self.tower.split and again and fits else None
        self.parameters = self.tower.trainable()
        self.optimizer = self._optimizer()
        self.buffers = {"mean": self.tower.mean, "scale": self.tower.scale}

    def run(self, progress: Progress, long: int) -> None:
        """All steps that are not done yet; `long` exchanges were cut in pieces, which the log tells."""
        done = self.checkpoint.load(self.parameters, self.optimizer, self.buffers)
        if not done:
            self._prepare()
        if self.accelerator.is_main_process:
            self.checkpoint.cut_log(done)
        if self.options.checkpointing:
            self.tower.recompute()
            self.tower.train()
        wrapped = self.accelerator.prepare(self.tower)
        progress("value head", done, self.steps)
        for step in range(done, self.steps):
            entry = self._step(step, wrapped)
            if self.accelerator.is_main_process:
                self.checkpoint.log.parent.mkdir(parents=True, exist_ok=True)
                self.checkpoint.note({"step": step + 1, **entry, "in_pieces": long})
                if (step + 1) % self.options.save_every == 0 or step + 1 == self.steps:
                    self.checkpoint.save(step + 1, self.parameters, self.optimizer, self.buffers)
            progress("value head", step + 1, self.steps)
        self.accelerator.wait_for_everyone()
        if self.store is not None:
            self.store.remove()

    def _step(self, step: int, wrapped: Any) -> dict[str, float]:
        """One update; returns what the log keeps of it."""
        begun = time.perf_counter()
        batch, omega = self._batch(step), step / max(1, self.steps - 1)
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        logits, final = self._forward(batch, wrapped)
        by_exchange, scored = batch.joined(logits.float())
        head = annealed_cummax(by_exchange, batch.labels, scored, omega)
        following = self._next_token(batch, final, step)
        loss = head + self.options.next_token * following
        seen = self.accelerator.reduce(torch.stack([loss.detach(), head.detach(), following.detach()]), "mean")
        self._check(step, seen, batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(list(self.parameters.values()), LARGEST_GRADIENT)
        self.optimizer.step()
        tokens = int(batch.present.sum()) * self.accelerator.num_processes
        parts = dict(zip(("loss", "head_loss", "next_token_loss"), seen.tolist(), strict=True))
        speed = tokens / (time.perf_counter() - begun)
        return {**parts, "omega": omega, "lr": rate, "tokens": tokens, "tokens_per_second": speed}

    def _batch(self, step: int) -> Batch:
        number = step * self.accelerator.num_processes + self.accelerator.process_index
        batch = collate(self.rows, self.batches[number % len(self.batches)])
        device = self.accelerator.device
        moved = {name: getattr(batch, name).to(device) for name in ("ids", "scored", "present", "labels")}
        return replace(batch, **moved)

    def _forward(self, batch: Batch, module: Any) -> tuple[Tensor, Tensor]:
        """Logits and last hidden states of a batch, by the tower or what accelerate made of it."""
        inputs = self._lower(batch) if self.tower.split else batch.ids
        with self._autocast():
            logits, final = module(inputs, batch.views)
        return logits, final

    def _lower(self, batch: Batch) -> Tensor:
        states = self.store.get(batch.numbers) if self.store else None
        if states is None:
            with self._autocast():
                states = self.tower.lower(batch.ids)
            if self.store:
                self.store.put(batch.numbers, states.float().cpu())
                states = self.store.get(batch.numbers)  # rounded as every later epoch will see them
                assert states is not None
        return states.to(self.accelerator.device)

    def _next_token(self, batch: Batch, final: Tensor, step: int) -> Tensor:
        """Mean next-token loss at some tokens of the batch; which ones depends on seed and step alone."""
        if self.unembedding is None:
            return final.new_zeros(())
        places = batch.present[:, 1:].cpu().nonzero()
        if not len(places):
            return final.new_zeros(())
        rng = np.random.default_rng([self.options.seed, step, self.accelerator.process_index])
        picked = places[rng.choice(len(places), min(NEXT_TOKENS, len(places)), replace=False)].to(final.device)
        states, targets = final[picked[:, 0], picked[:, 1]], batch.ids[picked[:, 0], picked[:, 1] + 1]
        return cross_entropy((states.to(self.unembedding.dtype) @ self.unembedding.T).float(), targets)

    @torch.no_grad()
    def _prepare(self) -> None:
        """Start the heads: inputs standardised on the first batches, each bias at its head's base rate."""
        states = []
        for numbers in self.batches[:STANDARDISED_ON]:
            batch = collate(self.rows, numbers)
            batch = replace(batch, ids=batch.ids.to(self.accelerator.device))
            _, final = self._forward(batch, self.tower)
            states.append(final[batch.scored.to(final.device)])
        seen = torch.cat(states)
        self.tower.mean.copy_(seen.mean(0))
        self.tower.scale.copy_(seen.std(0, correction=0) + 1e-3 * seen.std(0, correction=0).mean() + 1e-6)
        for number, view in enumerate(self.tower.views):
            labels = np.stack(list({row.exchange: row.labels for row in self.rows if row.view == view}.values()))
            positives = labels.sum(0)
            odds = (positives + 1) / (len(labels) - positives + 1)
            self.tower.bias[number].copy_(torch.from_numpy(np.log(odds)))

    def _optimizer(self) -> torch.optim.AdamW:
        heads = [self.parameters["weight"], self.parameters["bias"]]
        blocks = [p for name, p in self.parameters.items() if name not in ("weight", "bias")]
        groups = [{"params": blocks, "factor": 1.0}, {"params": heads, "factor": HEAD_RATE}]
        return torch.optim.AdamW(groups, lr=self.options.lr, weight_decay=0.01, betas=(0.9, 0.98))

    def _rate(self, step: int) -> float:
        warm = max(1, round(WARM_UP * self.steps))
        return self.options.lr * min(1.0, (step + 1) / warm, (self.steps - step) / max(1, self.steps - warm + 1))

    def _check(self, step: int, seen: Tensor, batch: Batch) -> None:
        if not torch.isfinite(seen).all():
            row = int(batch.numbers[0])
            raise DataError(
                f"value head: the loss of step {step + 1:,} of {self.steps:,} is not finite (batch of row {row:,}); "
                "lower the learning rate, or train in fp32"
            )

    def _autocast(self) -> Any:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.accelerator.device.type, self.dtype)


def _settled(options: Options, backbone: FinalBackbone, device: torch.device) -> Options:
    """The options with what was left open decided."""
    fast = device.type == "cuda" or has_bfloat16()
    precision = options.precision if options.precision != "auto" else "bf16" if fast else "fp32"
    if options.next_token and backbone.depth < backbone.model.config.num_hidden_layers:
        raise DataError("value head: the next-token loss needs all blocks of the backbone; leave depth open, or set its weight to 0")
    return replace(options, precision=precision, depth=backbone.depth, blocks=options.blocks or backbone.depth)


def _clauses(tables: Sequence[Table]) -> tuple[str, ...]:
    if not any(table.exchanges for table in tables):
        raise DataError("value head: there is no row to train on; synthesize examples first")
    found = {table.clauses for table in tables}
    if len(found) > 1:
        raise DataError("value head: the tables have different clauses; make them from one constitution")
    return found.pop()


def _accelerator() -> Any:
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingExtra("training a value head needs accelerate: pip install 'charter[train]'") from error
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    # Without a GPU accelerate makes no group of several processes unless it is told to: each would train for itself.
    accelerator = Accelerator(cpu=True) if wanted > 1 and not torch.cuda.is_available() else Accelerator()
    if accelerator.num_processes != wanted:
        raise DataError(
            f"value head: {wanted} processes were started and {accelerator.num_processes} came together; "
            "start them with torchrun, or one alone"
        )
    return accelerator
