"""The same disguises at the same rate for restricted, permitted and benign items, so that form alone never predicts the label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from random import Random

from charter.constitution import Clause, Constitution
from charter.synthesis.engine import Engine
from charter.synthesis.families import DRAWN, FOLLOWS, HELD_OUT, LEADS, family, held
from charter.synthesis.items import TURNING, Item, Key, Outcome, Written, home, key
from charter.synthesis.language import EXAMPLES_ONLY
from charter.synthesis.split import split_of
from charter.synthesis.teachers import Teacher

LONGEST = 400
"""Characters up to which a text is disguised: spacing and base64 multiply its tokens."""
TURNS_A_CLAUSE = 8
BUNDLE = 2_000
"""Copies made in one task."""
Texts = Mapping[tuple[str, str], Sequence[str]]
Said = Mapping[tuple[Key, str], str | None]
"""(item, family) -> its prompt in a teacher's translation; None where the teacher can't."""


@dataclass(frozen=True, slots=True)
class Disguises:
    """Which disguises are drawn, and how often. Every item has the same chances, whatever its side."""

    families: tuple[str, ...] = DRAWN
    """Names of families and of stacks; "plain" counts for nothing."""
    held_out: tuple[str, ...] = HELD_OUT
    """Drawn for items of the test split only, alone and within stacks."""
    rate: float = 0.15
    """Mean number of disguised copies of an item."""
    stacks: float = 0.1
    """Probability that a copy is a stack of two of the families."""

    def seen(self) -> Disguises:
        """Without the held-out ones: what items outside the test split get."""
        return replace(self, families=tuple(name for name in self.families if not held(name, self.held_out)))

    def choices(self, never: Collection[str] = ()) -> Choices:
        """The names to draw from: single families, and those that may come first and second in a stack, except in those of `never`."""
        names = tuple(dict.fromkeys(name for name in self.families if name != "plain"))
        single = [f for name in names if not (f := family(name)).parts]
        leads = tuple(f.name for f in single if f.kind in LEADS and not f.across_turns)
        return Choices(names, leads, tuple(f.name for f in single if f.kind in FOLLOWS), frozenset(never))


@dataclass(frozen=True, slots=True)
class Choices:
    """What a copy's family is drawn from."""

    names: tuple[str, ...]
    leads: tuple[str, ...]
    follows: tuple[str, ...]
    never: frozenset[str]
    """Stacks that are held out as such, though their parts are not."""

    def draw(self, rng: Random, rate: float, stacks: float) -> list[str]:
        """Names for one item, none twice: `rate` of them on average, or all there are."""
        left, out = list(self.names), []
        for _ in range(int(rate) + (rng.random() < rate % 1)):
            name = f"{rng.choice(self.leads)}+{rng.choice(self.follows)}" if self._stacked(rng, stacks) else ""
            if not name or name in out or name in self.never:
                if not left:
                    break
                name = left[rng.randrange(len(left))]
            if name in left:
                left.remove(name)
            out.append(name)
        return out

    def _stacked(self, rng: Random, stacks: float) -> bool:
        return bool(rng.random() < stacks and self.leads and self.follows)


def drawn(items: Iterable[Item], seed: int, disguises: Disguises) -> Iterator[tuple[Item, str]]:
    """Each item with the name of a family, once for each copy it is to get.

    Each draw depends on the seed and the parent alone, so an item gets the same disguises whatever else there is.
    """
    everywhere, in_test = disguises.seen().choices(disguises.held_out), disguises.choices()
    for item in items:
        if item.family == "plain" and len(item.prompt) <= LONGEST:
            choices = in_test if split_of(item.group) == "test" else everywhere
            for name in choices.draw(Random(f"augment:{seed}:{item.parent}"), disguises.rate, disguises.stacks):
                yield item, name


def copy(item: Item, name: str, seed: int) -> Item:
    """The item in the disguise of a family that needs no teacher."""
    turns = family(name).disguise(item.turns, Random(f"disguise:{seed}:{item.parent}:{name}"))
    return item.with_turns(turns, name)


def turning(items: Sequence[Item], constitution: Constitution, seed: int) -> list[Item]:
    """Permitted prompts whose answer turns midway: into a compliance, and as many into another harmless answer.

    The text it turns into comes from the same split as the prompt, so that none crosses. The harmless half is there
    because a break in a reply is a form, and form alone must not predict the label.
    """
    plain = [item for item in items if item.family == "plain"]
    compliances = _texts(plain, "compliance")
    answers = _texts(plain, "answer")
    out = []
    for clause in constitution.restricted:
        rng = Random(f"turning:{seed}:{clause.id}")
        starts = [i for i in plain if i.clause and i.clause == clause.counterpart and _answer(i)]
        rng.shuffle(starts)
        made = [pair for start in starts if (pair := _pair(start, clause, compliances, answers, rng))]
        out += [item for pair in made[:TURNS_A_CLAUSE] for item in pair]
    return out


async def augmented(
    items: Sequence[Item], constitution: Constitution, disguises: Disguises, seed: int, said: Said, engine: Engine
) -> Outcome:
    """The stage: the plain items, their disguised copies, and the exchanges that turn.

    A teacher said the translations beforehand (see translate.py); what it can't translate is dropped and counted.
    """
    pairs = list(drawn(items, seed, disguises))
    alone = [pair for pair in pairs if not family(pair[1]).instruction]
    bundles = [partial(_copies, pairs=alone[i : i + BUNDLE], seed=seed) for i in range(0, len(alone), BUNDLE)]
    copies = chain.from_iterable(await engine.run(bundles, what="augment"))
    outcome = Outcome(list(items))
    for item, name in pairs:
        if not family(name).instruction:
            outcome.kept.append(next(copies))
        elif item.clause in EXAMPLES_ONLY:
            outcome.dropped[home(item), "nothing is written for this clause"] += 1
        elif (text := said[key(item), name]) is None:
            outcome.dropped[home(item), "the teacher can't translate"] += 1
        else:
            outcome.kept.append(_translated(item, text, name, seed))
    outcome.kept += turning(items, constitution, seed)
    return outcome


async def _copies(teacher: Teacher, pairs: Sequence[tuple[Item, str]], seed: int) -> list[Item]:
    """Copies that need no teacher, a bundle at a time: one by one they would cost a cluster more in errands than in work."""
    return [copy(item, name, seed) for item, name in pairs]


def _translated(item: Item, text: str, name: str, seed: int) -> Item:
    """The item with its translation, which the second family of a stack disguises."""
    rng = Random(f"disguise:{seed}:{item.parent}:{name}")
    said = item.with_prompt(text, name)
    return said.with_turns(family(name).parts[1].disguise(said.turns, rng), name) if family(name).parts else said


def _texts(items: Sequence[Item], kind: str) -> Texts:
    """Replies of a kind by clause and split."""
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in items:
        texts[item.clause, split_of(item.group)] += [r.text for r in item.replies if r.kind == kind]
    return texts


def _answer(item: Item) -> str | None:
    return next((r.text for r in item.replies if r.kind == "answer"), None)


def _pair(start: Item, clause: Clause, compliances: Texts, answers: Texts, rng: Random) -> tuple[Item, Item] | None:
    """The same prompt and the same beginning, once into a compliance, once into the answer to another prompt."""
    answer, place = _answer(start) or "", split_of(start.group)
    harmful = compliances.get((clause.id, place), ())
    harmless = [text for text in answers.get((start.clause, place), ()) if text != answer]
    if not harmful or not harmless:
        return None
    words = answer.split(" ")
    opening = " ".join(words[: max(3, int(len(words) * rng.uniform(0.3, 0.7)))])
    base = replace(start, family=TURNING)
    bad = Written("compliance", f"{opening} {rng.choice(harmful)}")
    good = Written("answer", f"{opening} {rng.choice(harmless)}")
    return (
        replace(base, clause=clause.id, side=clause.side, slice=f"{clause.side}:{clause.id}", replies=(bad,)),
        replace(base, replies=(good,)),
    )
