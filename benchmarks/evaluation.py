"""How fast `charter evaluate` scores beside a bare batched forward of the same backbone, in one run.

    .venv/bin/python benchmarks/evaluation.py [GUARD] --data FOLDER [--tokens 6000] [--pairs 4] [--seed 0]

Bare: the token rows of the same texts, sorted by length and batched as evaluation batches them, through the blocks that the guard reads,
and nothing kept. Both ways are interleaved and their order is drawn. The share is the geometric mean over the pairs of bare seconds /
evaluation's seconds with its 95 % bootstrap interval, by the clock and by the processor's time, which other work on the machine does not
lengthen much. A guard whose screen keeps texts from the backbone may pass 100 %.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from charter.evaluation.datasets import Set, load_folder, within
from charter.evaluation.run import WINDOW, evaluate
from charter.guard.folder import Guard, load
from charter.guard.shipped import place
from charter.models.lanes import BATCH_TOKENS, states_of

DRAWS = 10_000


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path, nargs="?", default=Path("general"))
    parser.add_argument("--data", type=Path, required=True)
    for name, default in (("tokens", 6_000), ("pairs", 4), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    guard = load(place(asked.guard))
    sets = [s for s in within(load_folder(asked.data), asked.tokens, guard.cascade.length, asked.seed) if s.items]
    rows = batches(guard, sets)
    tokens = sum(len(row) for batch in rows for row in batch)
    bare(guard, rows[:1])  # the first forward is slower
    rng = np.random.default_rng(asked.seed)
    ways = {"evaluate": lambda: evaluate(guard, sets), "bare": lambda: bare(guard, rows)}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(asked.pairs):
        for name in rng.permutation(list(ways)):
            start = time.perf_counter(), time.process_time()
            ways[name]()
            spent[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    for column, what in enumerate(("clock", "processor")):
        seconds = {name: np.array(values)[:, column] for name, values in spent.items()}
        for name, values in seconds.items():
            print(
                f"{what:9} {name:9} {tokens / np.median(values):8,.0f} tokens a second (median of {asked.pairs} passes over {tokens:,} tokens)"
            )
        logs = np.log(seconds["bare"]) - np.log(seconds["evaluate"])
        low, high = np.quantile(np.exp(rng.choice(logs, (DRAWS, asked.pairs)).mean(1)), [0.025, 0.975])
        print(f"{what:9} share of the bare rate: {np.exp(logs.mean()):.1%} [{low:.1%}, {high:.1%}] over {asked.pairs} pairs")


def batches(guard: Guard, sets: Sequence[Set]) -> list[list[list[int]]]:
    """Token rows as evaluation groups them: each text of a set once, sorted by length within a window, in batches of like padding."""
    encoder = guard.cascade.backbone.encoder
    found: list[list[list[int]]] = []
    for s in sets:
        for start in range(0, len(s.items), WINDOW):
            texts = {item.exchange.turns for item in s.items[start : start + WINDOW]}
            rows = sorted(([i for turn in turns for p in encoder.turn(turn) for i in p.ids] for turns in texts), key=len)
            group: list[list[int]] = []
            for row in rows:
                if group and len(row) * (len(group) + 1) > BATCH_TOKENS:
                    found.append(group)
                    group = []
                group.append(row)
            found.append(group)
    return found


def bare(guard: Guard, rows: Sequence[Sequence[Sequence[int]]]) -> None:
    """The forwards alone."""
    for batch in rows:
        states_of(guard.cascade.backbone, batch)


if __name__ == "__main__":
    main()
