"""The same disguises at the same rate for restricted, permitted and benign items, so that form alone never predicts the label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

from charter.constitution import Clause, Constitution
from charter.synthesis.families import FAMILIES
from charter.synthesis.items import TURNING, Item, Outcome, Written
from charter.synthesis.split import split_of

LONGEST = 400
"""Characters up to which a text is disguised: spacing and base64 multiply its tokens."""
TURNS_A_CLAUSE = 8
Texts = Mapping[tuple[str, str], Sequence[str]]


def augment(items: Sequence[Item], seed: int, families: Sequence[str], held_out: Sequence[str], rate: float) -> list[Item]:
    """At most one disguised copy of each item, with probability `rate`; its family is drawn uniformly.

    Families in `held_out` are drawn only where the parent is in the test split. Each draw depends on the seed and the
    parent alone, so an item gets the same disguise whatever else there is.
    """
    seen = [f for f in families if f != "plain" and f not in held_out]
    unseen = [f for f in families if f in held_out]
    out = []
    for item in items:
        rng = Random(f"augment:{seed}:{item.parent}")
        choices = seen + unseen if split_of(item.parent) == "test" else seen
        if len(item.prompt) <= LONGEST and rng.random() < rate and choices:
            name = rng.choice(choices)
            out.append(item.with_prompt(FAMILIES[name].apply(item.prompt, rng), name))
    return out


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


def augmented(
    items: Sequence[Item], constitution: Constitution, seed: int, families: Sequence[str], held_out: Sequence[str], rate: float
) -> Outcome:
    """The stage: the plain items, their disguised copies, and the exchanges that turn."""
    copies = augment(items, seed, families, held_out, rate)
    return Outcome([*items, *copies, *turning(items, constitution, seed)])


def _texts(items: Sequence[Item], kind: str) -> Texts:
    """Replies of a kind by clause and split."""
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in items:
        texts[item.clause, split_of(item.parent)] += [r.text for r in item.replies if r.kind == kind]
    return texts


def _answer(item: Item) -> str | None:
    return next((r.text for r in item.replies if r.kind == "answer"), None)


def _pair(start: Item, clause: Clause, compliances: Texts, answers: Texts, rng: Random) -> tuple[Item, Item] | None:
    """The same prompt and the same beginning, once into a compliance, once into the answer to another prompt."""
    answer, place = _answer(start) or "", split_of(start.parent)
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
