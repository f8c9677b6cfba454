"""A harmless mate for every attack: the same form on a harmless prompt, the one that the guard likes least."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from charter.constitution import Constitution
from charter.errors import NoData
from charter.records import Example
from charter.redteam.arsenal import LONGEST, Arsenal
from charter.redteam.attacks import Candidate, Effort
from charter.redteam.guarded import Guarded

REDRAWS = 4
"""Harmless prompts drawn for each that is wanted: some forms change nothing in a text, or lose its meaning."""


@dataclass(slots=True)
class Material:
    """The plain prompts that rounds are made of, and the ids that are taken."""

    restricted: list[Example] = field(default_factory=list)
    """Train split."""
    near_misses: dict[str, list[Example]] = field(default_factory=dict)
    """Train split, by the restricted clause that they lie next to."""
    ordinary: list[Example] = field(default_factory=list)
    """Train split: benign pools, and permitted clauses that are nobody's counterpart."""
    test: list[Example] = field(default_factory=list)
    """Test split, both labels: for the held-out set and nothing else."""
    ids: set[str] = field(default_factory=set)
    """Of all examples."""


def material(examples: Iterable[Example], constitution: Constitution) -> Material:
    """Sort the plain prompts of a data folder by what they are for; those too long to disguise are left out.

    Raises:
        NoData: the train split has no restricted or no harmless prompt.
    """
    out = Material()
    neighbours: dict[str, list[str]] = {}
    for clause in constitution.restricted:
        out.near_misses[clause.id] = []
        if clause.counterpart:
            neighbours.setdefault(clause.counterpart, []).append(clause.id)
    for example in examples:
        out.ids.add(example.id)
        if example.family != "plain" or example.reply_restricted is not None or len(example.turns[-1].content) > LONGEST:
            continue
        if example.split == "test":
            out.test.append(example)
        elif example.split == "train" and example.prompt_restricted:
            out.restricted.append(example)
        elif example.split == "train":
            clauses = neighbours.get(example.clause, [])
            for name in clauses:
                out.near_misses[name].append(example)
            if not clauses:
                out.ordinary.append(example)
    if not out.restricted or not (out.ordinary or any(out.near_misses.values())):
        raise NoData("red teaming needs plain prompts of both sides in the train split: synthesize more")
    return out


def pairs(
    kept: Sequence[Candidate],
    stock: Material,
    guarded: Guarded,
    arsenal: Arsenal,
    effort: Effort,
    seed: str,
    progress: Callable[[int], None] = lambda _: None,
) -> list[tuple[Candidate, Candidate]]:
    """Each attack with its mate; attacks whose id is taken, or whose form fits no harmless prompt, are left out.

    Near misses of the attack's own clause and ordinary traffic take turns. The ids of the pairs are entered as taken.

    Args:
        progress: called with the number of attacks done since the last call.
    """
    out: list[tuple[Candidate, Candidate]] = []
    for start in range(0, len(kept), effort.block):
        block = kept[start : start + effort.block]
        drawn = [_drawn(start + number, attack, stock, arsenal, effort, seed) for number, attack in enumerate(block)]
        flat = [candidate for mates in drawn for candidate in mates]
        scores = iter(guarded.scores([candidate.exchange for candidate in flat]).tolist())
        for attack, mates in zip(block, drawn, strict=True):
            scored = [replace(mate, score=next(scores)) for mate in mates]
            new = [mate for mate in scored if mate.id not in stock.ids and mate.id != attack.id]
            mate = min(new, key=lambda mate: (-mate.score, mate.id), default=None)
            if mate is not None and attack.id not in stock.ids:
                stock.ids |= {attack.id, mate.id}
                out.append((attack, mate))
        progress(len(block))
    return out


def _drawn(number: int, attack: Candidate, stock: Material, arsenal: Arsenal, effort: Effort, seed: str) -> list[Candidate]:
    rng = Random(f"{seed}:mate:{attack.id}")
    near, ordinary = stock.near_misses.get(attack.parent.clause, []), stock.ordinary
    prompts = (near or ordinary) if number % 2 == 0 else (ordinary or near)
    if not prompts:
        prompts = [example for group in stock.near_misses.values() for example in group]
    out: list[Candidate] = []
    for parent in rng.sample(prompts, min(len(prompts), effort.mates * REDRAWS)):
        turns = arsenal.disguised(parent, attack.family, rng)
        if turns is not None and arsenal.means_the_same(parent, attack.family, turns):
            out.append(Candidate(parent, attack.family, turns))
        if len(out) == effort.mates:
            break
    return out
