"""What the probe adds to a model that answers in this process: FLOPs counted, and seconds a token with and without it.

    .venv/bin/python benchmarks/in_process.py                     # the guard that ships, about a minute on two cores
    .venv/bin/python benchmarks/in_process.py GUARD --tokens 512 --pairs 12

Both ways generate the same reply with the same code; one of them scores it on the way. Pairs are interleaved and their order drawn,
so that a busy machine slows both. A ratio is the geometric mean over the pairs with its 95 % bootstrap interval: "reply" from the end of the
prefill to the end of the reply, "whole" with the prefill and with what judges the prompt there, a sentence encoder among it where the guard
has one. "inside" is what scoring and the last token's state take of the guarded reply's seconds, by clocks around them: it does not suffer
from what else the machine does.

FLOPs are those of matrix products, as torch counts them, with the weights as they were loaded: laid out for serving, torch's counter
passes them over. The probe's are 2 a weight. The last token's state, which only its score needs, costs a forward of the tokens that are
left: its share falls with the length of the reply.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from charter.guard.in_process import InProcessGuard, load_in_process
from charter.guard.shipped import place
from charter.models import packed
from charter.models.generation import Generation, Generator, Sampling
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
    prompt: float
    """Of what reads the prompt besides the model."""
    last: float
    """Of the forward that gives the last token its state."""
    probe: float


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of one reply."""

    opening: float
    """Until the prompt is read and, where it is guarded, judged."""
    reply: float
    scoring: float = 0.0
    """Of the reply's, those spent on scoring it."""
    last: float = 0.0
    """Of the reply's, those of the forward that gives the last token its state, timed once more behind the reply."""


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
        f"the last token's state {counted.last:.4g}, other readers of the prompt {counted.prompt:.4g}"
    )
    parts = [100 * part / counted.model for part in (counted.probe, counted.last, counted.prompt)]
    print("added: the probe {:.2f} %, the last token's state {:.2f} %, other readers of the prompt {:.2f} %".format(*parts))
    seconds(guard, sampling, counted.tokens, asked.pairs, asked.seed)


def flops(guard: InProcessGuard, sampling: Sampling) -> Counted:
    """Count a whole reply both ways. Leaves the weights laid out for serving."""
    cascade = guard.guard.cascade
    packed.unpack(cascade.backbone.body.layers)
    if cascade.whole:
        packed.unpack(cascade.whole.encoder._blocks)
    with FlopCounterMode(display=False) as guarded:
        read, _, generation = scored(guard, sampling)
    with FlopCounterMode(display=False) as plain:
        unguarded(guard, sampling, generation.drawn)
    with FlopCounterMode(display=False) as judged:
        opening = len(UpstreamSession(cascade, PROMPT).opening)
    with FlopCounterMode(display=False) as prefill:
        _generator(guard).start(PROMPT)
    cascade.pack()
    own = sum(2 * layer.inner.size for layer in cascade.probe.hidden.values()) / len(cascade.views)  # of the probe's, what torch counts
    base = plain.get_total_flops()
    prompt = judged.get_total_flops() - prefill.get_total_flops() - own * opening
    last = guarded.get_total_flops() - base - prompt - own * read
    return Counted(generation.drawn, base, prompt, last, cascade.probe.flops_per_token * read)


def seconds(guard: InProcessGuard, sampling: Sampling, tokens: int, pairs: int, seed: int) -> None:
    """Print seconds a token both ways, their ratios, and the share of scoring inside."""
    rng = np.random.default_rng(seed)
    spent: dict[str, list[Timed]] = {"without": [], "with": []}
    unguarded(guard, sampling, tokens)  # warms up
    for _ in range(pairs):
        for name in rng.permutation(list(spent)):
            if name == "with":
                _, timed, generation = scored(guard, sampling)
                spent[name].append(replace(timed, last=last_state(guard, generation)))
            else:
                spent[name].append(unguarded(guard, sampling, tokens))
    for name, values in spent.items():
        print(
            f"{name:8} {1e3 * np.median([v.reply for v in values]) / tokens:8.2f} ms a token, the opening "
            f"{1e3 * np.median([v.opening for v in values]):.1f} ms (medians of {pairs} replies of {tokens} tokens)"
        )
    note = f"(95 %, n = {pairs} pairs, seed {seed}, {torch.get_num_threads()} threads)"
    reply, opening, scoring, last = (
        {name: np.array([getattr(v, part) for v in values]) for name, values in spent.items()}
        for part in ("reply", "opening", "scoring", "last")
    )
    for part, took in (("reply", reply), ("whole", {name: reply[name] + opening[name] for name in spent})):
        value, low, high = np.exp(_mean(np.log(took["with"]) - np.log(took["without"]), rng))
        print(f"{part}: ratio {value:.4f} [{low:.4f}, {high:.4f}] {note}")
    both = scoring["with"] + last["with"]
    for what, own in (("scoring", scoring["with"]), ("the last token's state", last["with"]), ("both", both)):
        value, low, high = _mean(own / (reply["with"] - both), rng)
        print(f"inside: {what} {100 * value:.2f} % [{100 * low:.2f}, {100 * high:.2f}] of the rest of the reply's seconds {note}")


def _mean(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """The mean and its bootstrap interval: [3]."""
    return np.array([values.mean(), *np.quantile(rng.choice(values, (DRAWS, len(values))).mean(1), [0.025, 0.975])])


def unguarded(guard: InProcessGuard, sampling: Sampling, tokens: int) -> Timed:
    """The reply alone: the prefill names the first token, so one step fewer than there are tokens."""
    begun = time.perf_counter()
    generation = _generator(guard).start(PROMPT)
    read = time.perf_counter()
    for _ in islice(generation.tokens(sampling), tokens - 1):
        pass
    return Timed(read - begun, time.perf_counter() - read)


def scored(guard: InProcessGuard, sampling: Sampling) -> tuple[int, Timed, Generation]:
    """The reply with a score for every token of it and of the prompt: how many were scored, the seconds that took, what was drawn."""
    begun = time.perf_counter()
    session = UpstreamSession(guard.guard.cascade, PROMPT)
    read = time.perf_counter()
    count, spent = len(session.opening), 0.0
    for text in session.write(sampling):
        start = time.perf_counter()
        count += len(session.push(text))
        spent += time.perf_counter() - start
    start = time.perf_counter()
    count += len(session.flush())
    end = time.perf_counter()
    return count, Timed(read - begun, end - read, spent + end - start), session.generation


def last_state(guard: InProcessGuard, generation: Generation) -> float:
    """Seconds of the last forward of a reply, run once more on its cache."""
    ending = _generator(guard).chat.ending
    start = time.perf_counter()
    generation._close([*ending, *ending])  # as many tokens as the last one and the mark behind it
    return time.perf_counter() - start


def _generator(guard: InProcessGuard) -> Generator:
    """The model that answers."""
    backbone = guard.guard.cascade.backbone
    assert isinstance(backbone, Generator)
    return backbone


if __name__ == "__main__":
    main()
