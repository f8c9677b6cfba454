"""Refusal tokens: the rows to train on, and one sweep that tells what every threshold would do.

Each prompt is read once, and answered once after each mark that some rule could choose. From these the token and the behaviour
follow at every threshold. The two are reported apart: a reply may begin with `refuse` and help all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import DataError, NoData
from charter.models.marked import BATCH, Marked
from charter.models.refusal_tokens import REFUSE, RESPOND, Rule, category
from charter.records import Example, Split, Turn
from charter.refusals.classify import Classifier
from charter.statistics import auroc, bootstrap, clopper_pearson

THRESHOLDS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.999)
PLAIN_REFUSALS = (
    "I can't help with that.", "Sorry, I won't help with this.", "No, that is something I don't do.", "I'd rather not answer this one.",
    "I'm not able to assist with that request.", "I have to decline.", "Sorry, but I can't answer that.", "I won't go into this.",
)  # fmt: skip
FEWEST = 8
"""Refusals to train on below which a clause gets no mark of its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt with the mark that its reply begins with, and the reply."""

    prompt: tuple[Turn, ...]
    reply: str
    mark: int
    parent: str
    chosen: bool = True
    """The prompt calls for this mark. Where not, the row only shows what follows the mark, and the mark itself is not learned."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt whose reply should be a refusal, or should not."""

    prompt: tuple[Turn, ...]
    restricted: bool
    clause: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A prompt that was read once and answered after each mark that some rule could choose."""

    asked: Asked
    p: NDArray[np.float64]
    """Probabilities [marks] of the token."""
    declines: Mapping[int, bool]
    """Whether the reply refuses, wholly or in part, by the mark that it begins with."""


def training_rows(examples: Iterable[Example], per_clause: bool, limit: int | None, seed: int) -> tuple[tuple[str, ...], list[Row]]:
    """Refusals of restricted prompts and answers to permitted ones, from the train split; the marks, and the rows in a drawn order.

    Every permitted prompt comes once more, refused in a few plain words after a refusal token that it does not call for. Else the prompt
    alone would tell what the reply does, and the token would move nothing. (The reverse, harm after `respond`, is not taught.)

    Args:
        per_clause: one refusal token a clause that has at least FEWEST refusals; clauses with fewer are left out.
        limit: most rows that call for their mark, half of them refusals.

    Raises:
        NoData: there are no refusals, or no answers.
    """
    found = [e for e in examples if e.split == "train" and e.reply_restricted is False]
    refusals, answers = ([e for e in found if e.prompt_restricted is side] for side in (True, False))
    counts = Counter(e.clause for e in refusals)
    own = sorted(clause for clause, n in counts.items() if n >= FEWEST) if per_clause else []
    refusals = [e for e in refusals if e.clause in own] if per_clause else refusals
    if not refusals or not answers:
        raise NoData(
            f"refusal tokens learn from refusals of restricted prompts and answers to permitted ones; the train split has "
            f"{len(refusals):,} and {len(answers):,}: write some with `charter synthesize`"
        )
    marks = (RESPOND, *(f"{REFUSE}:{clause}" for clause in own)) if own else (RESPOND, REFUSE)
    places = {clause: number for number, clause in enumerate(own, 1)}
    rng = np.random.default_rng(seed)
    kept = [_drawn(rng, side, None if limit is None else max(1, limit // 2)) for side in (refusals, answers)]
    rows = [Row(e.exchange.prompt, e.exchange.reply or "", places.get(e.clause, 1), e.parent) for e in kept[0]]
    rows += [Row(e.exchange.prompt, e.exchange.reply or "", 0, e.parent) for e in kept[1]]
    shown = zip(kept[1], rng.choice(PLAIN_REFUSALS, len(kept[1])), rng.integers(1, len(marks), len(kept[1])), strict=True)
    rows += [Row(e.exchange.prompt, str(said), int(mark), e.parent, chosen=False) for e, said, mark in shown]
    return marks, _drawn(rng, rows, None)


def prompts(examples: Iterable[Example], split: Split, limit: int | None, seed: int) -> list[Asked]:
    """Restricted and permitted prompts of a split, one a parent so that each is a trial of its own, at most `limit` a side.

    Raises:
        NoData: a side has none.
    """
    parents = {e.parent: e for e in examples if e.split == split and e.family == "plain"}
    every = [Asked(e.exchange.prompt, e.prompt_restricted, e.clause) for e in parents.values()]
    rng = np.random.default_rng(seed)
    sides = [_drawn(rng, [a for a in every if a.restricted is side], limit) for side in (True, False)]
    if not all(sides):
        raise NoData(f"the {split} split has {len(sides[0]):,} restricted and {len(sides[1]):,} other prompts; a sweep needs both")
    return [*sides[0], *sides[1]]


def answer(model: Marked, asked: Sequence[Asked], judge: Classifier, max_tokens: int, progress: Any = lambda *_: None) -> list[Answered]:
    """Read every prompt once, and answer it after `respond` and after its likeliest refusal.

    No rule chooses another mark, so these two replies are all that any threshold can bring about. Greedy: nothing is drawn at random.

    Raises:
        BackboneError: a prompt doesn't fit the model.
    """
    found: list[Answered] = []
    order = sorted(range(len(asked)), key=lambda n: sum(len(turn.content) for turn in asked[n].prompt))  # alike lengths together
    for start in range(0, len(order), BATCH):
        group = [asked[n] for n in order[start : start + BATCH]]
        p = [model.read(one.prompt) for one in group]
        ids = [model.prompt(one.prompt) for one in group]
        refusing = [1 + int(np.argmax(own[1:])) for own in p]
        said = [model.continue_all(ids, marks, max_tokens) for marks in ([0] * len(group), refusing)]
        for one, own, mark, *replies in zip(group, p, refusing, *said, strict=True):
            does = [judge.judge(reply).did != "complied" for reply in replies]
            found.append(Answered(one, own, {0: does[0], mark: does[1]}))
        progress("answering", min(start + BATCH, len(order)), len(order))
    back = dict(zip(order, found, strict=True))
    return [back[n] for n in range(len(asked))]


def sweep(
    answered: Sequence[Answered], marks: tuple[str, ...], thresholds: Sequence[float] = THRESHOLDS, shift: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """What every threshold does to the token and to the behaviour, on restricted and on permitted prompts, with exact 95 % intervals.

    Raises:
        NoData: a side has no prompts.
        DataError: a threshold is none.
    """
    sides = {name: [a for a in answered if a.asked.restricted is side] for name, side in (("restricted", True), ("permitted", False))}
    if not all(sides.values()):
        raise NoData("a sweep needs restricted and permitted prompts")
    labels = np.array([a.asked.restricted for a in answered])
    scores = np.array([a.p[1:].sum() for a in answered])
    clauses = [category(mark) for mark in marks[1:] if category(mark)]
    return {
        "schema": 1,
        "seed": seed,
        "marks": list(marks),
        "shift": shift,
        "auroc": bootstrap(auroc, labels, scores, seed).as_dict(),
        "argmax": {name: _rates(own, marks, Rule(shift=shift)) for name, own in sides.items()},
        "thresholds": [
            {"threshold": theta, **{name: _rates(own, marks, Rule(theta, shift=shift)) for name, own in sides.items()}}
            for theta in thresholds
        ],
        "behaviour_after": {
            name: {"refuse": _share([_after(a, True) for a in own]), "respond": _share([_after(a, False) for a in own])}
            for name, own in sides.items()
        },
        "categories": {clause: _category(answered, marks, clause, thresholds, shift) for clause in clauses},
    }


def parse_thresholds(text: str) -> tuple[float, ...]:
    """Thresholds from a list with commas.

    Raises:
        DataError: one is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise DataError(f"thresholds are numbers with commas between them, such as 0.1,0.5,0.9, not {text!r}") from error


def _rates(answered: Sequence[Answered], marks: tuple[str, ...], rule: Rule) -> dict[str, Any]:
    """How often the token is a refusal under a rule, and how often the reply is one."""
    chosen = [rule.choose(a.p, marks) for a in answered]
    return {
        "token": _share([mark > 0 for mark in chosen]),
        "behaviour": _share([a.declines[mark] for a, mark in zip(answered, chosen, strict=True)]),
    }


def _category(answered: Sequence[Answered], marks: tuple[str, ...], clause: str, thresholds: Sequence[float], shift: float) -> Any:
    """One category's own threshold moved, the others at the model's own choice: how often its token comes, and how often any other refusal.

    The others must stand still: a clause's threshold is asked for only where its token is the likeliest refusal.
    """
    sides = {
        "own": [a for a in answered if a.asked.restricted and a.asked.clause == clause],
        "restricted": [a for a in answered if a.asked.restricted and a.asked.clause != clause],
        "permitted": [a for a in answered if not a.asked.restricted],
    }
    found = []
    for theta in thresholds:
        rule = Rule(categories={clause: theta}, shift=shift)
        row: dict[str, Any] = {"threshold": theta}
        for name, own in sides.items():
            chosen = [marks[rule.choose(a.p, marks)] for a in own]
            this = _share([category(mark) == clause for mark in chosen])
            row[name] = {"token": this, "others": _share([mark != RESPOND and category(mark) != clause for mark in chosen])}
        found.append(row)
    return found


def _after(answered: Answered, refusing: bool) -> bool:
    """What the reply does after a refusal token, or after `respond`."""
    return next(does for mark, does in answered.declines.items() if (mark > 0) is refusing)


def _share(hits: Sequence[bool]) -> dict[str, Any] | None:
    """None where there is nothing to count."""
    return clopper_pearson(sum(hits), len(hits)).as_dict() if hits else None


def _drawn(rng: np.random.Generator, items: Sequence[Any], limit: int | None) -> list[Any]:
    """The items in a drawn order, at most `limit`."""
    return [items[n] for n in rng.permutation(len(items))[:limit]]
