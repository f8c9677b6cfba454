"""Many replies at once: tokens a second and the longest wait for a score, one stream after the other and in shared forwards.

    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/gateway_streams.py [--guard general] [--streams 1 4 16 64] [--seconds 4]
    ... --screen-only                  # as a guard whose screen never escalates
    ... --paced 20                     # each stream gets so many tokens a second, as from an upstream, and must keep up

Every stream has a thread, as in the gateway. Without --paced each pushes its next word as soon as the last one is scored: that is the rate
the scorer can do. With it, a stream keeps up if its last word is scored within a second of when it was due.
"""

from __future__ import annotations

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from charter.guard.folder import Guard, load
from charter.guard.gathered import gathered
from charter.guard.holdback import GuardLike
from charter.records import Turn

WORDS = "Lighthouses guided ships along dangerous coasts long before radio, and keepers lit their lamps by hand every evening. ".split()
LATE_S = 1.0


@dataclass
class Reading:
    """What one stream did."""

    tokens: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds from when a word was due to its score."""


def main() -> None:
    """Measure and print a line a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guard", type=Path, default=Path("general"))
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--paced", type=float, default=0.0)
    parser.add_argument("--screen-only", action="store_true")
    parser.add_argument("--way", choices=["one by one", "shared"], default=None)
    asked = parser.parse_args()
    ways = {way: _guard(asked.guard, asked.screen_only) for way in ([asked.way] if asked.way else ["one by one", "shared"])}
    served: dict[str, GuardLike] = {way: gathered(guard) if way == "shared" else guard for way, guard in ways.items()}
    for n in asked.streams:  # the ways in turn, so that a busy machine slows both
        for way, guard in ways.items():
            print(report(way, run(guard, served[way], n, asked.seconds, asked.paced), asked.seconds, asked.paced), flush=True)


def _guard(folder: Path, screen_only: bool) -> Guard:
    guard = load(folder)
    never = dict.fromkeys(guard.cascade.escalate, np.inf)
    return replace(guard, cascade=replace(guard.cascade, escalate=never)) if screen_only else guard


def run(guard: Guard, served: GuardLike, n: int, seconds: float, pace: float) -> list[Reading]:
    """n replies at once, for so long; their prompts are judged before the clock starts."""
    with ThreadPoolExecutor(n) as pool:
        sessions = list(pool.map(served.open, [(Turn("user", "Lighthouses?"),)] * n))
    readings = [Reading() for _ in range(n)]
    lengths = [len(guard.cascade.backbone.encoder.segment(f" {word}")) for word in WORDS]
    start = time.perf_counter() + 0.2

    def read(number: int) -> None:
        due, at = start + (number / n / pace if pace else 0.0), number
        while due - start < seconds and (pace or time.perf_counter() - start < seconds):
            if pace:
                time.sleep(max(0.0, due - time.perf_counter()))
            begun = due if pace else time.perf_counter()
            sessions[number].push(f" {WORDS[at % len(WORDS)]}")
            readings[number].waits.append(time.perf_counter() - begun)
            readings[number].tokens += lengths[(at - 1) % len(WORDS)]
            due += lengths[at % len(WORDS)] / pace if pace else 0.0
            at += 1

    threads = [threading.Thread(target=read, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return readings


def report(way: str, readings: list[Reading], seconds: float, pace: float) -> str:
    """One line: the rate, the waits, and who kept up."""
    waits = np.array([wait for reading in readings for wait in reading.waits])
    tokens = sum(reading.tokens for reading in readings)
    line = f"{way:10} {len(readings):3} streams {tokens / seconds:8.1f} tokens/s  wait p50 {1e3 * np.median(waits):7.1f} ms, "
    line += f"p99 {1e3 * np.quantile(waits, 0.99):7.1f} ms  (n = {len(waits)} words in {seconds:g} s)"
    if pace:
        kept = sum(reading.waits[-1] < LATE_S for reading in readings)
        line += f"  {kept} of {len(readings)} keep up with {pace:g} tokens/s"
    return line


if __name__ == "__main__":
    main()
