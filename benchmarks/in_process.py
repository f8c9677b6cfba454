"""What the probe adds to a model that answers in this process: FLOPs counted, and seconds a token with and without it.

    .venv/bin/python benchmarks/in_process.py GUARD [--tokens 128] [--pairs 12] [--seed 0]

Both ways generate the same reply with the same code; one of them scores it on the way. Pairs are interleaved and their order drawn,
so that a busy machine slows both. The ratio is the geometric mean over the pairs with its 95 % bootstrap interval. FLOPs are those of
matrix products, as torch counts them; the probe's are 2 a weight. The guarded way also runs one step more, for the last token's state.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from charter.guard.in_process import InProcessGuard, load_in_process
from charter.models.generation import Sampling
from charter.models.upstream_probe import UpstreamSession
from charter.records import Turn

PROMPT = (Turn("user", "Tell me at length about the history of lighthouses and of the people who kept them."),)
DRAWS = 10_000


def main() -> None:
    """Count, time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path)
    for name, default in (("tokens", 128), ("pairs", 12), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    guard = load_in_process(asked.guard)
    sampling = Sampling(asked.tokens, temperature=0)
    tokens = len(list(guard.guard.cascade.backbone.start(PROMPT).tokens(sampling)))  # also warms up
    flops(guard, sampling, tokens)
    seconds(guard, sampling, tokens, asked.pairs, asked.seed)


def flops(guard: InProcessGuard, sampling: Sampling, tokens: int) -> None:
    """Print the FLOPs of a whole reply both ways, the prefill included."""
    cascade = guard.guard.cascade
    with FlopCounterMode(display=False) as plain:
        unguarded(guard, sampling)
    with FlopCounterMode(display=False) as guarded:
        read = scored(guard, sampling)
    base, steps = plain.get_total_flops(), guarded.get_total_flops() - plain.get_total_flops()
    probe = cascade.probe.flops_per_token * read
    print(f"FLOPs of a reply of {tokens} tokens: the model {base:.4g}, the last step {steps:.4g}, the probe {probe:.4g} on {read} tokens")
    print(f"added: {100 * (steps + probe) / base:.3f} % (the probe alone {100 * probe / base:.3f} %)")


def seconds(guard: InProcessGuard, sampling: Sampling, tokens: int, pairs: int, seed: int) -> None:
    """Print seconds a token both ways and their ratio."""
    rng = np.random.default_rng(seed)
    spent: dict[str, list[float]] = {"without": [], "with": []}
    ways = {"without": unguarded, "with": scored}
    for _ in range(pairs):
        for name in rng.permutation(list(ways)):
            start = time.perf_counter()
            ways[name](guard, sampling)
            spent[name].append((time.perf_counter() - start) / tokens)
    logs = np.log(spent["with"]) - np.log(spent["without"])
    drawn = np.exp(rng.choice(logs, (DRAWS, pairs)).mean(1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    for name, values in spent.items():
        print(f"{name:8} {1e3 * np.median(values):8.2f} ms a token (median of {pairs} replies of {tokens} tokens)")
    print(
        f"ratio {np.exp(logs.mean()):.4f} [{low:.4f}, {high:.4f}] (95 %, n = {pairs} pairs, seed {seed}, {torch.get_num_threads()} threads)"
    )


def unguarded(guard: InProcessGuard, sampling: Sampling) -> None:
    """The reply alone, without the step that only the last token's score needs."""
    generation = guard.guard.cascade.backbone.start(PROMPT)
    for number, _ in enumerate(generation.tokens(sampling), 2):
        if number > sampling.max_tokens or generation.finish:
            break


def scored(guard: InProcessGuard, sampling: Sampling) -> int:
    """The reply, and a score for every token of it and of the prompt; returns how many were scored."""
    session = UpstreamSession(guard.guard.cascade, PROMPT)
    scores = [score for text in session.write(sampling) for score in session.push(text)] + session.flush()
    return len(session.opening) + len(scores)


if __name__ == "__main__":
    main()
