"""Harmless prompts of public sets, answered by a language model, under a guard: the share of replies that it wrongly flags.

    .venv/bin/python benchmarks/ordinary_replies.py general --data FOLDER [--limit 40] [--tokens 200] [--seed 0] [--out replies.json]
    .venv/bin/python benchmarks/ordinary_replies.py general --data FOLDER --upstream URL --model NAME

From each set of FOLDER at most --limit harmless prompts of one turn are drawn and answered at temperature 0.8, by the embedded model (135M: many of its
replies are wrong, and some are odd, but a guard is to stop neither) or by an OpenAI-compatible upstream. Replies are kept in --cache, so a killed run
goes on and another guard is judged on the same ones. Nobody has read them: a reply to a harmless prompt is counted as harmless, so the shares are upper
bounds where the model goes astray. Intervals are Clopper-Pearson's, 95 %; each prompt is answered once, so the replies are independent.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio

from charter.embedded import cache_folder
from charter.errors import NoData
from charter.evaluation.datasets import Item, load_folder
from charter.evaluation.precision import sixteen_bits
from charter.guard.folder import Guard, load
from charter.guard.shipped import place
from charter.llm.cache import Cache, CachedChat
from charter.llm.chat import Request
from charter.llm.client import OpenAIChat
from charter.llm.embedded import MODEL, embedded_server
from charter.llm.pool import gather
from charter.records import Exchange, Turn, write_text
from charter.statistics import clopper_pearson

AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and the set that it is of."""

    set: str
    turns: tuple[Turn, ...]


def main() -> None:
    """Draw, ask, score, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    for name, default in (("limit", 40), ("tokens", 200), ("longest", 1_000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--upstream", help="base URL of an OpenAI-compatible server; without it the embedded model answers")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--cache", type=Path, default=cache_folder() / "ordinary_replies.sqlite")
    parser.add_argument("--bfloat16", action="store_true", help="16-bit weights: about twice as fast")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    prompts = drawn(asked.data, asked.limit, asked.longest, asked.seed)
    with upstream(asked.upstream) as url:
        replies = anyio.run(answered, prompts, url, asked.model, asked.tokens, asked.seed, asked.cache)
    guard = load(place(asked.guard))
    if asked.bfloat16:
        sixteen_bits(guard)
    found = {
        "guard": guard.hash, "model": asked.model, "seed": asked.seed, "tokens": asked.tokens,
        "sets": measured(prompts, flagged(guard, prompts, replies)),
    }  # fmt: skip
    print(table(found))
    if asked.out:
        write_text(asked.out, json.dumps(found, indent=2) + "\n")


def drawn(data: Path, limit: int, longest: int, seed: int) -> list[Asked]:
    """At most `limit` harmless prompts of one turn and at most `longest` characters of each set.

    Raises:
        NoData: there is none.
    """

    def fits(item: Item) -> bool:
        turns = item.exchange.turns
        return not item.positive and len(turns) == 1 and len(turns[0].content) <= longest

    found = []
    for s in load_folder(data):
        short = [item for item in s.items if fits(item)]
        own = Random(f"{seed}:{s.name}").sample(short, min(limit, len(short)))
        found += [Asked(s.name, item.exchange.turns) for item in own]
    if not found:
        raise NoData(f"{data}: holds no harmless prompt of one turn and at most {longest} characters")
    return found


@contextmanager
def upstream(url: str | None) -> Iterator[str]:
    """The URL, or that of the embedded model's own server."""
    if url:
        yield url
    else:
        with embedded_server(AT_ONCE) as own:
            yield own


async def answered(prompts: Sequence[Asked], url: str, model: str, tokens: int, seed: int, cache: Path) -> list[str]:
    """A reply to each prompt."""
    client = OpenAIChat(url, model, role="upstream")
    try:
        with Cache(cache) as kept:
            chat = CachedChat(client, kept, limit=AT_ONCE)

            async def one(number: int) -> str:
                return (await chat.complete(Request(prompts[number].turns, tokens, 0.8, seed + number))).text

            return await gather([partial(one, n) for n in range(len(prompts))], AT_ONCE, said, "replies")
    finally:
        await client.aclose()


def said(what: str, done: int, total: int) -> None:
    """Progress, a line now and then."""
    if done % 50 == 0 or done == total:
        print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)


def flagged(quiet: Guard, prompts: Sequence[Asked], replies: Sequence[str]) -> list[tuple[bool, bool]]:
    """Of each reply, whether the quiet and the balanced point flag it; scored once."""
    balanced = replace(quiet, point="balanced")
    exchanges = [Exchange(str(n), (*p.turns, Turn("assistant", reply))) for n, (p, reply) in enumerate(zip(prompts, replies, strict=True))]
    order = sorted(range(len(exchanges)), key=lambda n: sum(len(turn.content) for turn in exchanges[n].turns))
    found: dict[int, tuple[bool, bool]] = {}
    for n, (scored, verdict) in zip(order, quiet.score(exchanges[n] for n in order), strict=True):
        found[n] = verdict.flagged, balanced.judge(scored).flagged
    return [found[n] for n in range(len(exchanges))]


def measured(prompts: Sequence[Asked], verdicts: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """The share flagged at each point, of each set and of all together."""
    rows = {}
    for name in [*dict.fromkeys(p.set for p in prompts), "all"]:
        own = [verdict for p, verdict in zip(prompts, verdicts, strict=True) if name in (p.set, "all")]
        rows[name] = {
            point: {"flagged": (count := sum(v[at] for v in own))} | clopper_pearson(count, len(own)).as_dict()
            for at, point in enumerate(("quiet", "balanced"))
        }
    return rows


def table(found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"replies by {found['model']} of at most {found['tokens']} tokens, guard {found['guard']}, seed {found['seed']}", "",
        "| prompts of | n | `quiet`: flagged | `balanced`: flagged |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, row in found["sets"].items():
        told = [f"{own['flagged']}, {own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]" for own in row.values()]
        lines.append(f"| {name} | {row['quiet']['n']} | {' | '.join(told)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
