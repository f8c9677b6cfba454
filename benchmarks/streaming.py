"""What streaming costs over one batched pass, on the embedded backbone: seconds as ratios in one run, and equality of the scores.

    make bench            (or: .venv/bin/python benchmarks/streaming.py runs/demo/guard)

Prints, for a reply of some 300 tokens, the time of a batched pass, of steps of 16 tokens, and word by word; and the largest difference of
probability between them. Ratios, not milliseconds, are what carries over to other machines.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from charter.guard.folder import Guard, load
from charter.records import Exchange, Turn

PROMPT = (Turn("user", "Tell me about the history of lighthouses."),)
SENTENCE = "Lighthouses guided ships along dangerous coasts long before radio, and keepers lit their lamps by hand every evening. "


def main(folder: Path, repeats: int = 3) -> None:
    """Time the three ways and compare what they found."""
    guard = load(folder)
    reply = SENTENCE * 14
    words = reply.split(" ")
    ways = {
        "one batched pass": lambda: batched(guard, reply),
        "steps of 12 words": lambda: streamed(guard, [" ".join(words[i : i + 12]) + " " for i in range(0, len(words), 12)]),
        "word by word": lambda: streamed(guard, [word + " " for word in words]),
    }
    base, first = 0.0, np.empty(0)
    print(f"{'way':20} {'tokens':>7} {'s (best of ' + str(repeats) + ')':>16} {'ratio':>7} {'largest difference':>20}")
    for name, way in ways.items():
        seconds, p = min((timed(way) for _ in range(repeats)), key=lambda found: found[0])
        base, first = base or seconds, first if len(first) else p
        difference = float(np.abs(p[: len(first)] - first[: len(p)]).max())
        print(f"{name:20} {len(p):>7} {seconds:>16.2f} {seconds / base:>7.1f} {difference:>20.1e}")


def timed(way):  # type: ignore[no-untyped-def]
    """Seconds and result of a call."""
    start = time.perf_counter()
    found = way()
    return time.perf_counter() - start, found


def batched(guard: Guard, reply: str) -> np.ndarray:
    """Probabilities of the reply's tokens, the whole exchange at once."""
    (scored,) = guard.cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", reply.rstrip())))])
    assert scored.reply is not None
    return guard.policies["exchange"].probability(scored.reply[:, 0])


def streamed(guard: Guard, pieces: list[str]) -> np.ndarray:
    """The same, a piece at a time."""
    session = guard.cascade.open(PROMPT)
    pieces = [*pieces[:-1], pieces[-1].rstrip()]
    scores = [score for piece in pieces for score in session.push(piece)] + session.flush()
    return guard.policies["exchange"].probability(np.array([score.z[0] for score in scores]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo/guard"))
