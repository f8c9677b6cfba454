"""What the probe adds to a model that answers in this process: FLOPs counted, and seconds a token with and without it.

    .venv/bin/python benchmarks/in_process.py                     # the guard that ships, about a minute on two cores
    .venv/bin/python benchmarks/in_process.py GUARD --tokens 512 --pairs 12

Both ways generate the same reply with the same code; one of them scores it on the way. Pairs are interleaved and their order drawn,
so that a busy machine slows both. The ratio is the geometric mean over the pairs with its 95 % bootstrap interval. "inside" is the share
of the guarded way's seconds that is spent on scoring, by a clock around it: it does not suffer from what else the machine does.

FLOPs are those of matrix products, as torch counts them, with the weights as they were loaded: laid out for serving, torch's counter
passes them over. The probe's are 2 a weight. The last token's state, which only its score needs, costs a forward of the tokens that are
left: its share falls with the length of the reply.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from charter.guard.in_process import InProcessGuard, load_in_process
from charter.guard.shipped import place
from charter.models import packed
from charter.models.generation import Generator, Sampling
from charter.models.upstream_probe import UpstreamSession
from charter.records import Turn

PROMPT = (Turn("user", "Tell me at length about the history of lighthouses and of the people who kept them."),)
DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Counted:
    """FLOPs of one reply of `tokens` tokens, the prefill included."""

    tokens: int
    model: float
    """Of the model that answers, unguarded."""
    last: float
    """Of the forward that gives the last token its state."""
    probe: float

    @property
    def added(self) -> float:
        """The probe's share of the model's, and of what is left to the last forward."""
        return (self.last + self.probe) / self.model


def main() -> None:
    """Count, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path, nargs="?", default=Path("general"), help="a guard folder, or the name of a shipped guard")
    for name, default in (("tokens", 48), ("pairs", 10), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    guard = load_in_process(place(asked.guard))
    sampling = Sampling(asked.tokens, temperature=0)
    counted = flops(guard, sampling)
    print(
        f"FLOPs of a reply of {counted.tokens} tokens: the model {counted.model:.4g}, the probe {counted.probe:.4g}, "
        f"the last token's state {counted.last:.4g}"
    )
    print(f"added: the probe {100 * counted.probe / counted.model:.2f} %, with the last token's state {100 * counted.added:.2f} %")
    seconds(guard, sampling, counted.tokens, asked.pairs, asked.seed)


def flops(guard: InProcessGuard, sampling: Sampling) -> Counted:
    """Count a whole reply both ways. Leaves the weights laid out for serving."""
    cascade = guard.guard.cascade
    packed.unpack(cascade.backbone.body.layers)
    with FlopCounterMode(display=False) as guarded:
        read, _, tokens = scored(guard, sampling)
    with FlopCounterMode(display=False) as plain:
        unguarded(guard, sampling, tokens)
    cascade.pack()
    base = plain.get_total_flops()
    return Counted(tokens, base, guarded.get_total_flops() - base, cascade.probe.flops_per_token * read)


def seconds(guard: InProcessGuard, sampling: Sampling, tokens: int, pairs: int, seed: int) -> None:
    """Print seconds a token both ways, their ratio, and the share of scoring inside."""
    rng = np.random.default_rng(seed)
    spent: dict[str, list[float]] = {"without": [], "with": []}
    inside = []
    unguarded(guard, sampling, tokens)  # warms up
    for _ in range(pairs):
        for name in rng.permutation(list(spent)):
            start = time.perf_counter()
            if name == "with":
                inside.append(scored(guard, sampling)[1])
            else:
                unguarded(guard, sampling, tokens)
            spent[name].append(time.perf_counter() - start)
    for name, values in spent.items():
        print(f"{name:8} {1e3 * np.median(values) / tokens:8.2f} ms a token (median of {pairs} replies of {tokens} tokens)")
    note = f"(95 %, n = {pairs} pairs, seed {seed}, {torch.get_num_threads()} threads)"
    logs = np.log(spent["with"]) - np.log(spent["without"])
    value, low, high = np.exp(_mean(logs, rng))
    print(f"ratio {value:.4f} [{low:.4f}, {high:.4f}] {note}")
    value, low, high = _mean(np.array(inside) / (np.array(spent["with"]) - inside), rng)
    print(f"inside: scoring takes {100 * value:.2f} % [{100 * low:.2f}, {100 * high:.2f}] of the rest's seconds {note}")


def _mean(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The mean and its bootstrap interval: [3]."""
    return np.array([values.mean(), *np.quantile(rng.choice(values, (DRAWS, len(values))).mean(1), [0.025, 0.975])])


def unguarded(guard: InProcessGuard, sampling: Sampling, tokens: int) -> None:
    """The reply alone: the prefill names the first token, so one step fewer than there are tokens."""
    backbone = guard.guard.cascade.backbone
    assert isinstance(backbone, Generator)
    for _ in islice(backbone.start(PROMPT).tokens(sampling), tokens - 1):
        pass


def scored(guard: InProcessGuard, sampling: Sampling) -> tuple[int, float, int]:
    """The reply with a score for every token of it and of the prompt: how many were scored, the seconds that took, the tokens drawn."""
    session = UpstreamSession(guard.guard.cascade, PROMPT)
    count, spent = len(session.opening), 0.0
    for text in session.write(sampling):
        start = time.perf_counter()
        count += len(session.push(text))
        spent += time.perf_counter() - start
    start = time.perf_counter()
    count += len(session.flush())
    return count, spent + time.perf_counter() - start, session.generation.drawn


if __name__ == "__main__":
    main()
