"""What streaming costs over one batched pass, on a guard's backbone: seconds as ratios in one run, tokens read, bytes kept, equal scores.

    .venv/bin/python benchmarks/streaming.py                      # the guard that ships, a reply of 2,000 tokens: several minutes on two cores
    .venv/bin/python benchmarks/streaming.py runs/demo/guard --tokens 400
    .venv/bin/python benchmarks/streaming.py --float16            # `charter serve --precision float16`: seconds, and what it does to the scores
    .venv/bin/python benchmarks/streaming.py --bfloat16           # the same with everything in bfloat16

The reply comes whole, in steps of some 16 tokens (12 words) and word by word. "read" is how many tokens the backbone ran over the prompt and
the reply: the same in every way, so streaming costs the FLOPs of the batched pass and no more.
Ratios, not milliseconds, are what carries over to other machines.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.guard.folder import Guard, load
from charter.guard.gathered import gathered
from charter.guard.shipped import place
from charter.records import Exchange, Turn

PROMPT = (Turn("user", "Tell me about the history of lighthouses."),)
SENTENCE = "Lighthouses guided ships along dangerous coasts long before radio, and keepers lit their lamps by hand every evening. "
WORDS = 12
"""Of a step; this sentence has 1.3 tokens a word."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One way through the reply."""

    seconds: float
    probabilities: NDArray[np.float64]
    """Of the reply's tokens."""
    read: int
    """Tokens that the backbone ran."""


def main() -> None:
    """Time the three ways and compare what they found."""
    options = _options()
    guard = load(place(options.guard))
    if not options.alone:
        gathered(guard)  # as `charter serve` does
    reply = (SENTENCE * (1 + options.tokens // 22)).strip()
    words = reply.split(" ")
    steps = [" ".join(words[i : i + WORDS]) + " " for i in range(0, len(words), WORDS)]
    ways: dict[str, Callable[[], Timed]] = {
        "one batched pass": lambda: batched(guard, reply),
        f"steps of {WORDS} words": lambda: streamed(guard, steps),
        "word by word": lambda: streamed(guard, [word + " " for word in words]),
    }
    exact = batched(guard, reply)
    if options.bfloat16 and not guard.cascade.backbone.hurry():
        raise SystemExit("this processor has no instructions for bfloat16")
    if options.float16 and not guard.cascade.backbone.halve():
        raise SystemExit("this torch has no product with 16-bit weights")
    print(f"{'way':20} {'tokens':>7} {'read':>7} {f's (best of {options.repeats})':>16} {'ratio':>7} {'largest difference':>20}")
    base = 0.0
    for name, way in ways.items():
        found = min((way() for _ in range(options.repeats)), key=lambda timed: timed.seconds)
        base = base or found.seconds
        difference = float(np.abs(found.probabilities - exact.probabilities).max())
        print(
            f"{name:20} {len(found.probabilities):>7} {found.read:>7} {found.seconds:>16.2f} {found.seconds / base:>7.1f} {difference:>20.1e}"
        )
    print(f"state of one stream: {state_bytes(guard):,} bytes a token of context")


def batched(guard: Guard, reply: str) -> Timed:
    """The whole exchange at once."""
    begun = time.perf_counter()
    (scored,) = guard.cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", reply)))])
    seconds = time.perf_counter() - begun
    assert scored.reply is not None
    return Timed(seconds, guard.policies["exchange"].probability(scored.reply[:, 0]), scored.read[0])


def streamed(guard: Guard, pieces: list[str]) -> Timed:
    """The same, a piece at a time."""
    pieces = [*pieces[:-1], pieces[-1].rstrip()]
    begun = time.perf_counter()
    session = guard.cascade.open(PROMPT)
    scores = [score for piece in pieces for score in session.push(piece)] + session.flush()
    seconds = time.perf_counter() - begun
    return Timed(seconds, guard.policies["exchange"].probability(np.array([score.z[0] for score in scores])), session.read[0])


def state_bytes(guard: Guard) -> int:
    """Keys and values of one token in all blocks that are run, float32; the scorers' own state is a few kilobytes a turn."""
    config = guard.cascade.backbone.body.config
    width = config.hidden_size // config.num_attention_heads
    return 2 * 4 * max(guard.cascade.backbone.layers) * config.num_key_value_heads * width


def _options() -> argparse.Namespace:
    first, *rest = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(description=first, epilog="\n\n".join(rest), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path, nargs="?", default=Path("general"), help="a guard folder, or the name of a shipped guard")
    parser.add_argument("--tokens", type=int, default=2_000, help="of the reply, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="by transformers' own cache, not by the forwards that streams share")
    parser.add_argument("--bfloat16", action="store_true", help="16-bit weights and states")
    parser.add_argument("--float16", action="store_true", help="16-bit weights, float32 sums")
    return parser.parse_args()


if __name__ == "__main__":
    main()
