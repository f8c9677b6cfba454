"""Attacks on the current guard: disguises drawn by what got through so far, drawn anew, and stacked.

A bandit over the families starts uniform and learns within a round; what it learned of the guard before the last training says
little about this one, so each round starts afresh. Every attack that is kept gets a mate: the same family on a harmless prompt, the
draw that looks worst to the guard, so that form never predicts the label and false positives are mined as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from charter.records import Example, Exchange, Turn
from charter.redteam.arsenal import Arsenal
from charter.redteam.guarded import Guarded
from charter.synthesis.items import digest

REDRAWS = 6
"""Draws before a try is given up as one that changes nothing, is too long or was tried before."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a round tries."""

    parents: int = 900
    """Restricted prompts that are disguised."""
    tries: int = 4
    """Disguises of each, until one gets through."""
    width: int = 2
    """Of them scored together; of those that get through, the highest is kept."""
    block: int = 100
    """Prompts worked on together: the bandit learns from one block to the next."""
    compose: float = 1 / 3
    """Probability that a try is a stack of two families."""
    mutate: float = 1 / 3
    """Probability that a later try draws the prompt's lowest-scoring disguise again."""
    mates: int = 3
    """Harmless prompts tried in each kept attack's form; the one with the highest score is its mate."""


@dataclass(slots=True)
class Bandit:
    """Families drawn in proportion to their smoothed rate of success: (through + 1) / (tried + 2)."""

    names: tuple[str, ...]
    tried: Counter[str] = field(default_factory=Counter)
    through: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    """Tries whose meaning did not survive; they count as failures."""

    def weight(self, name: str) -> float:
        return (self.through[name] + 1) / (self.tried[name] + 2)

    def draw(self, rng: Random, but: str = "") -> str:
        """A family, other than `but` where there is another."""
        names = [name for name in self.names if name != but] or list(self.names)
        return rng.choices(names, [self.weight(name) for name in names])[0]

    def saw(self, name: str, through: bool, lost: bool = False) -> None:
        """Enter one try; both families of a stack get the credit."""
        for part in name.split("+"):
            self.tried[part] += 1
            self.through[part] += through
            self.lost[part] += lost


@dataclass(frozen=True, slots=True)
class Candidate:
    """A parent in a disguise."""

    parent: Example
    family: str
    turns: tuple[Turn, ...]
    score: float = 1.0

    @property
    def id(self) -> str:
        return digest(self.turns)

    @property
    def exchange(self) -> Exchange:
        return Exchange(self.id, self.turns)

    def row(self, teacher: str) -> Example:
        """The training example; all that a disguise doesn't change is the parent's."""
        return replace(self.parent, id=self.id, turns=self.turns, family=self.family, teacher=teacher)


@dataclass(slots=True)
class Hunt:
    """What a round's attacks came to."""

    bandit: Bandit
    parents: int = 0
    missed_plain: int = 0
    """Parents that the guard misses undisguised: no family gets credit for them."""
    tried: int = 0
    """Disguises scored."""
    got_through: int = 0
    """Disguises scored below the threshold, with their meaning intact."""
    kept: list[Candidate] = field(default_factory=list)
    """One of each parent that had any: of the first that got through together, the highest-scoring."""


def hunt(
    parents: Sequence[Example], guarded: Guarded, arsenal: Arsenal, effort: Effort, seed: str, progress: Callable[[int], None]
) -> Hunt:
    """Attack the guard with each parent in up to `effort.tries` disguises.

    Args:
        parents: plain restricted prompts.
        seed: drives every draw; the same guard and seed give the same attacks.
        progress: called with the number of parents done since the last call.
    """
    out = Hunt(Bandit(arsenal.names), len(parents))
    for start in range(0, len(parents), effort.block):
        block = parents[start : start + effort.block]
        _attack(block, guarded, arsenal, effort, seed, out)
        progress(len(block))
    return out


def _attack(block: Sequence[Example], guarded: Guarded, arsenal: Arsenal, effort: Effort, seed: str, out: Hunt) -> None:
    flagged = guarded.scores([parent.exchange for parent in block]) >= guarded.threshold
    out.missed_plain += int((~flagged).sum())
    credited = {parent.id: bool(f) for parent, f in zip(block, flagged, strict=True)}
    trials = [_Trial(parent, Random(f"{seed}:{parent.id}")) for parent in block]
    for begun in range(0, effort.tries, effort.width):
        count = min(effort.width, effort.tries - begun)
        candidates = [(t, c) for t in trials for c in t.next(arsenal, out.bandit, effort, count, credited[t.parent.id])]
        found = guarded.scores([c.exchange for _, c in candidates]).tolist() if candidates else []
        for (trial, candidate), score in zip(candidates, found, strict=True):
            through = score < guarded.threshold
            out.tried += 1
            out.got_through += through
            if credited[trial.parent.id]:
                out.bandit.saw(candidate.family, through)
            trial.saw(replace(candidate, score=score), through)
        out.kept += [t.kept for t in trials if t.kept]
        trials = [t for t in trials if not t.kept]


class _Trial:
    """One parent under its disguises so far."""

    def __init__(self, parent: Example, rng: Random) -> None:
        self.parent, self._rng = parent, rng
        self.best: Candidate | None = None
        """The lowest-scoring try: what is drawn again or stacked upon."""
        self.kept: Candidate | None = None
        """Of the tries that got through, the one that the guard came closest to: the lowest are mostly ciphers that it can't read at all,
        and from those it learns nothing."""
        self._tried: set[tuple[Turn, ...]] = set()

    def next(self, arsenal: Arsenal, bandit: Bandit, effort: Effort, count: int, credited: bool) -> Iterator[Candidate]:
        """At most `count` disguises that were not tried before and kept their meaning."""
        for _ in range(count):
            for _ in range(REDRAWS):
                name = self._name(arsenal, bandit, effort)
                turns = arsenal.disguised(self.parent, name, self._rng)
                if turns is None or turns in self._tried:
                    continue
                self._tried.add(turns)
                if arsenal.means_the_same(self.parent, name, turns):
                    yield Candidate(self.parent, name, turns)
                    break
                if credited:
                    bandit.saw(name, through=False, lost=True)

    def saw(self, candidate: Candidate, through: bool) -> None:
        if self.best is None or candidate.score < self.best.score:
            self.best = candidate
        if through and (self.kept is None or candidate.score > self.kept.score):
            self.kept = candidate

    def _name(self, arsenal: Arsenal, bandit: Bandit, effort: Effort) -> str:
        dice, base = self._rng.random(), self.best.family if self.best else ""
        if dice < effort.compose:
            first = base if base and "+" not in base else bandit.draw(self._rng)
            return arsenal.stacked(first, bandit.draw(self._rng, but=first)) or first
        return base if base and dice < effort.compose + effort.mutate else bandit.draw(self._rng)
