"""Adaptive search: for a suffix, or a stack of families, by which a prompt passes. By the guard's score where it is at hand, which
costs no query; else by whether the endpoint blocked the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from charter.records import Verdict
from charter.redteam.forms import formed, stacked
from charter.redteam.questions import Question
from charter.redteam.strategies import Attack, Kit, Try
from charter.redteam.target import Scorer, Turns
from charter.synthesis.families import DRAWN
from charter.synthesis.families.family import replaced

LENGTH, WIDTH, CHANGED = 10, 8, 2
"""Words of a suffix, variants scored together, and words changed at a step."""
WORDS = (
    "thanks please note for my class garden recipe history essay novel summary list table safe lawful kind weather museum music "
    "translate spelling example poem kettle river lesson child letter holiday ! ? . : ; -- ** ## == (( )) [[ ]] >> ``` \\n $ % & ~"
).split()
"""Harmless words and marks: what is searched for is an order of them that a guard misreads."""
FORMS = 16
"""Families tried first by a composition, as far as the scored prompts suffice."""

Suffix = tuple[str, ...]


async def suffix(question: Question, kit: Kit) -> Attack:
    """A suffix for each question by random search (Andriushchenko et al. 2024): a few words changed, kept if no worse."""
    best = _random(kit.rng)
    for _ in range(kit.tries):
        if kit.score is not None:
            best, _ = await _descend([question], best, kit.score, kit.scored // kit.tries, kit.rng)
        seen = yield Try(_with(question.turns, best), "suffix")
        if seen.judged.success:
            return
        if seen.answer.blocked or kit.score is not None:
            best = _changed(best, kit.rng)


async def universal_suffix(question: Question, kit: Kit) -> Attack:
    """One suffix for all questions: the lowest mean score over them, searched for once and then sent with each."""
    assert kit.score is not None
    async with kit.lock:  # whoever comes first looks for it; the others wait
        if "suffix" not in kit.shared:
            rng, asked = Random(f"{kit.seed}:universal-suffix"), kit.questions
            kit.shared["suffix"], _ = await _descend(asked, _random(rng), kit.score, max(kit.scored, 2 * WIDTH * len(asked)), rng)
    yield Try(_with(question.turns, kit.shared["suffix"]), "universal suffix")


async def compose(question: Question, kit: Kit) -> Attack:
    """The family that passes best, and then the one that does so on top of it."""
    passed = ""
    for _ in range(kit.tries):
        name, turns = _drawn(question, passed, kit.rng) if kit.score is None else await _greedy(question, kit, kit.score)
        if turns is None:
            continue
        seen = yield Try(turns, name)
        if seen.judged.success:
            return
        if not seen.answer.blocked and "+" not in name:
            passed = name


def _drawn(question: Question, passed: str, rng: Random) -> tuple[str, Turns | None]:
    """Without a score: a random form, on top of the last that was not blocked."""
    other = rng.choice(DRAWN)
    name = (stacked(passed, other) if passed else None) or other
    return name, formed(question.turns, name, rng)


async def _greedy(question: Question, kit: Kit, score: Scorer) -> tuple[str, Turns | None]:
    """The lowest-scoring single form of a random handful, or a stack on it where that scores lower."""
    half = max(1, min(FORMS, kit.scored // (2 * kit.tries)))
    forms = await _scored(question, kit.rng.sample(DRAWN, min(half, len(DRAWN))), kit.rng, score)
    if not forms:
        return "", None
    first = min(forms, key=lambda form: form[0].score)
    names = [found for other in kit.rng.sample(DRAWN, min(half, len(DRAWN))) if (found := stacked(first[1], other))]
    return min([first, *await _scored(question, names, kit.rng, score)], key=lambda form: form[0].score)[1:]


async def _scored(question: Question, names: Sequence[str], rng: Random, score: Scorer) -> list[tuple[Verdict, str, Turns]]:
    forms = [(name, turns) for name in names if (turns := formed(question.turns, name, rng)) is not None]
    verdicts = await score([turns for _, turns in forms]) if forms else []
    return [(verdict, *form) for verdict, form in zip(verdicts, forms, strict=True)]


async def _descend(questions: Sequence[Question], start: Suffix, score: Scorer, scored: int, rng: Random) -> tuple[Suffix, float]:
    """Random search for the lowest mean score over the questions; ends where all pass or `scored` prompts were scored."""

    async def means(variants: Sequence[Suffix]) -> list[tuple[float, Suffix, bool]]:
        verdicts = await score([_with(q.turns, v) for v in variants for q in questions])
        rows = [verdicts[n * len(questions) : (n + 1) * len(questions)] for n in range(len(variants))]
        return [
            (sum(v.score for v in row) / len(row), variant, any(v.flagged for v in row))
            for row, variant in zip(rows, variants, strict=True)
        ]

    best, flagged = start, True
    lowest, left = float("inf"), max(scored // len(questions), 1)
    while left > 0 and flagged:
        variants = [best] if lowest == float("inf") else [_changed(best, rng) for _ in range(min(WIDTH, left))]
        left -= len(variants)
        mean, variant, still = min(await means(variants), key=lambda found: found[0])
        if mean <= lowest:
            lowest, best, flagged = mean, variant, still
    return best, lowest


def _random(rng: Random) -> Suffix:
    return tuple(rng.choice(WORDS) for _ in range(LENGTH))


def _changed(suffix: Suffix, rng: Random) -> Suffix:
    places = set(rng.sample(range(len(suffix)), CHANGED))
    return tuple(rng.choice(WORDS) if n in places else word for n, word in enumerate(suffix))


def _with(turns: Turns, suffix: Suffix) -> Turns:
    return replaced(turns, f"{turns[-1].content} {' '.join(suffix)}")
