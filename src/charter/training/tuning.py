"""Tune a sentence encoder to the prompts: adapters on every block, and the layer on its vectors trained along with them.

It starts from the encoder as it is and the layer that was fitted on it (`training.whole`), where an adapter adds nothing, so the first
step already judges as well as that. Each step reads a few exchanges of like length; the loudest window of each carries its label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charter.errors import BackboneError, DataError
from charter.models.loading import has_bfloat16
from charter.models.probe import Hidden
from charter.models.sentence import SentenceEncoder
from charter.training.adapters import adapters, stored
from charter.training.checkpoint import Checkpoint
from charter.training.hidden import DROPOUT
from charter.training.losses import softmax_weighted

BLOCKS = "encoder.layer"
RANK = 16
"""Of the adapters: 1.3 MB in a guard's folder. All weights of the blocks would be 21 MB."""
RATE, LAYER_RATE = 5e-4, 1e-4
DECAY, LAYER_DECAY = 0.01, 0.05
WARM_UP = 60
"""Steps over which the learning rates rise; then they fall linearly to nothing."""
EXCHANGES = 32
"""In a step."""
MOST = 3
"""Windows of an exchange that a step reads; of more it draws so many."""
JITTER = 15.0
"""Tokens by which an exchange's length is misjudged, so that its neighbours in a batch change with the epoch."""
LARGEST_GRADIENT = 1.0
TOKENS = 4_096
"""In one forward, padding included, or one exchange: a step of long texts is read so many at a time, for memory's sake."""
SAVE_EVERY = 100
"""Steps from one checkpoint to the next."""


@dataclass(frozen=True, slots=True)
class Windowed:
    """What is learned from: the windows of all exchanges as token ids, the exchange of each, in order, and labels [exchanges, heads]."""

    rows: list[list[int]]
    owner: NDArray[np.int64]
    labels: NDArray[np.float32]

    def digest(self) -> str:
        """Tells all of it: 16 hex digits."""
        return hashlib.sha256(repr((self.rows, self.owner.tolist())).encode() + self.labels.tobytes()).hexdigest()[:16]


def tune(
    encoder: SentenceEncoder,
    data: Windowed,
    layer: tuple[Hidden, NDArray[np.float32]],
    epochs: int,
    seed: int,
    cache: Path,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[dict[str, Tensor], Hidden, NDArray[np.float32]]:
    """The change of the encoder (`sentence.Change`), and the layer and bias that go with it. Called again after a kill, it goes on.

    Args:
        encoder: is changed by it and no longer fit for other use.
        layer: where the layer and its bias start.
        cache: folder in which the run keeps its checkpoint and log (log.jsonl, a line a step).

    Raises:
        BackboneError: the encoder's blocks are not where BERT has them.
        DataError: the loss is not finite.
        MissingExtra: peft is not installed.
    """
    factors, net = _adapted(encoder, seed), _net(*layer)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(factors.values()), "weight_decay": DECAY, "highest": RATE},
            {"params": list(net.parameters()), "weight_decay": LAYER_DECAY, "highest": LAYER_RATE},
        ]
    )
    parameters = {**factors, **{f"layer.{name}": p for name, p in net.named_parameters()}}
    run = hashlib.sha256(repr((encoder.fingerprint, data.digest(), epochs, seed, RANK, RATE, LAYER_RATE)).encode()).hexdigest()[:16]
    checkpoint = Checkpoint(cache / run, run)
    done = checkpoint.load(parameters, optimizer, {})
    checkpoint.cut_log(done)
    checkpoint.log.parent.mkdir(parents=True, exist_ok=True)
    batches = [own for epoch in range(epochs) for own in _batches(data, seed, epoch)]
    for step in range(done, len(batches)):
        rate = min(1.0, (step + 1) / WARM_UP) * (1 - step / len(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["highest"]
        optimizer.zero_grad(set_to_none=True)
        loss = _learn(encoder, net, data, batches[step], seed, step)
        if not np.isfinite(loss):
            raise DataError(
                f"sentence encoder: the loss of step {step + 1:,} of {len(batches):,} is not finite; --encoder-epochs 0 leaves it as it is"
            )
        nn.utils.clip_grad_norm_(factors.values(), LARGEST_GRADIENT)
        optimizer.step()
        checkpoint.note({"step": step + 1, "loss": loss, "lr": rate * RATE})
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == len(batches):
            checkpoint.save(step + 1, parameters, optimizer, {})
        progress(step + 1, len(batches))
    return stored(factors), *_layer(net)


def _adapted(encoder: SentenceEncoder, seed: int) -> dict[str, nn.Parameter]:
    """Put adapters on the encoder's blocks; gives their factors by name."""
    model = encoder.for_training()
    if not isinstance(getattr(model.encoder, "layer", None), nn.ModuleList):
        raise BackboneError(f"{encoder.name}: its blocks are not where BERT has them, so it can't be tuned; leave --encoder-epochs out")
    found = adapters(model, 0, RANK, seed, BLOCKS)
    model.train()
    return {name: p for own in found.values() for name, p in own.items()}


def _batches(data: Windowed, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """The exchanges of each step: every one once, those of like length together, in random order."""
    rng = np.random.default_rng([seed, epoch])
    lengths = np.bincount(data.owner, [len(row) for row in data.rows], len(data.labels))
    order = np.argsort(lengths + rng.normal(0, JITTER, len(lengths)), kind="stable")
    for number in rng.permutation(-(-len(order) // EXCHANGES)):
        yield order[number * EXCHANGES :][:EXCHANGES]


def _learn(encoder: SentenceEncoder, net: nn.Module, data: Windowed, picked: NDArray[np.int64], seed: int, step: int) -> float:
    """The loss of a step's exchanges; leaves its gradients. What it draws depends on seed and step alone, so a run that goes on is the same."""
    rng = np.random.default_rng([seed, step])
    read = [_drawn(data, exchange, rng) for exchange in picked.tolist()]
    total, start = 0.0, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * 1_000_003 + step)
        while start < len(read):
            end = start + 1
            while end < len(read) and _padded(read[start : end + 1]) <= TOKENS:
                end += 1
            owner = torch.tensor([number for number, rows in enumerate(read[start:end]) for _ in rows])
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                vectors = encoder.pooled([row for rows in read[start:end] for row in rows])
            labels = torch.from_numpy(data.labels[picked[start:end]])
            loss = softmax_weighted(net(vectors), labels, owner, end - start) * ((end - start) / len(read))
            loss.backward()  # type: ignore[no-untyped-call]
            total, start = total + float(loss.detach()), end
    return total


def _drawn(data: Windowed, exchange: int, rng: np.random.Generator) -> list[list[int]]:
    """The windows of an exchange that a step reads."""
    own = np.arange(*np.searchsorted(data.owner, [exchange, exchange + 1]))
    if len(own) > MOST:
        own = np.sort(rng.choice(own, MOST, replace=False))
    return [data.rows[number] for number in own]


def _padded(read: Sequence[Sequence[Sequence[int]]]) -> int:
    return sum(map(len, read)) * max(len(row) for rows in read for row in rows)


def _net(layer: Hidden, bias: NDArray[np.float32]) -> nn.Sequential:
    """The layer and its bias as they are trained on."""
    units, inputs = layer.inner.shape
    net = nn.Sequential(nn.Linear(inputs, units), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(units, len(bias)))
    with torch.no_grad():
        for parameter, start in zip(net.parameters(), (layer.inner, layer.bias, layer.outer, bias), strict=True):
            parameter.copy_(torch.from_numpy(start))
    return net


def _layer(net: nn.Module) -> tuple[Hidden, NDArray[np.float32]]:
    inner, bias, outer, own = (np.array(p.detach(), np.float32) for p in net.parameters())
    return Hidden(inner, bias, outer), own
