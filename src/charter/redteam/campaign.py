"""The campaign: unguarded answers first, then rounds in which every attack that still runs makes one query, until the budget is spent.

What is asked depends on the seed and the answers alone, never on their order in time, so any number of queries may be in flight,
and a killed run, whose log gives back the answers it had, makes the same queries as an undisturbed one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from charter.errors import DataError, NoData
from charter.llm.chat import Chat
from charter.llm.pool import Progress, gather, quiet
from charter.redteam.judge import Judge, Judged
from charter.redteam.log import Log
from charter.redteam.questions import Question
from charter.redteam.rubric import Grader, Rubric
from charter.redteam.strategies import Attack, Kind, Kit, Named, Seen, Try
from charter.redteam.target import Answer, Scorer, Target, Turns
from charter.refusals.classify import Classifier

UNGUARDED = "unguarded"
"""In the log, the strategy of the answers that rubrics are made from."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a campaign is run."""

    budget: int = 1_000
    """Queries to the target, exactly, unless all attacks end before."""
    tries: int = 4
    """Queries of one strategy for one question."""
    seed: int = 0
    max_tokens: int = 256
    references: int = 2
    """Unguarded answers to each question; 0: nothing is graded."""
    scored: int = 80
    """Prompts that one search may have the guard score."""
    limit: int = 4
    """Calls in flight."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One query and its judgement."""

    n: int
    """Number of the query in the campaign, from 0."""
    strategy: str
    kind: Kind
    family: str
    question: str
    step: int
    """Number of the query within its strategy and question."""
    turns: Turns
    answer: Answer
    judged: Judged

    def row(self) -> dict[str, Any]:
        """What is logged besides the turns and the answer."""
        names = {"n": self.n, "strategy": self.strategy, "kind": self.kind, "family": self.family, "question": self.question}
        return {**names, "step": self.step, "judged": self.judged.as_dict()}


@dataclass(slots=True)
class Result:
    """A campaign's attempts, and what they took."""

    attempts: list[Attempt]
    questions: list[Question]
    """Those that the strategies shared and that were attacked."""
    left_out: int
    """Those that the budget did not suffice for."""
    graded: int
    """Of the attacked ones, those with a rubric."""
    references: int
    """Queries for unguarded answers; they are no part of the budget."""
    scored: int = 0
    """Prompts that the guard scored for searches."""
    faults: Counter[str] = field(default_factory=Counter)


async def run(
    questions: Sequence[Question], strategies: Sequence[Named], target: Target, classifier: Classifier, log: Log, options: Options, *,
    unguarded: Target | None = None, grader: Grader | None = None, score: Scorer | None = None, attacker: Chat | None = None,
    progress: Progress = quiet,
) -> Result:  # fmt: skip
    """Attack.

    Args:
        unguarded: the target without its guard; None: nothing is graded by detail.

    Raises:
        DataError: the budget is too small for one query of every strategy.
        TeacherError: the target or the attacker can't be reached; what was answered is in the log.
    """
    shared = [s for s in strategies if not s.questions]
    own = [s for s in strategies if s.questions]
    if not strategies or (shared and not questions):
        raise NoData("a campaign needs a strategy and a question at least")
    attacked = _within(questions, len(shared), sum(len(s.questions) for s in own), options)
    everything = [*attacked, *(q for s in own for q in s.questions)]
    asking = _Asking(log, classifier, options, progress)
    rubrics: dict[str, Rubric] = {}
    if unguarded is not None and grader is not None and options.references:
        rubrics = await asking.rubrics(everything, unguarded, grader)
    left_out = len(questions) - len(attacked) if shared else 0
    references = len(everything) * options.references if unguarded is not None else 0
    result = Result([], attacked, left_out, sum(q.id in rubrics for q in attacked), references)

    async def counted(prompts: Sequence[Turns]) -> Any:
        assert score is not None
        result.scored += len(prompts)
        if fresh := log.scores.missing(prompts):
            log.scores.put(fresh, await score(fresh))
        progress("prompts scored for searches", result.scored, 0)
        return log.scores.get(prompts)

    made = partial(_kit, options, attacked, None if score is None else counted, attacker, result)
    cells = [_Cell(s, q, s.attack(q, kit)) for s, q, kit in _cells(attacked, shared, own, made)]
    judge = Judge(classifier, grader, rubrics)
    try:
        await asking.rounds(cells, target, judge, result)
    finally:
        for cell in cells:
            await cell.attack.aclose()
    return result


def _within(questions: Sequence[Question], shared: int, own: int, options: Options) -> list[Question]:
    """As many questions as the budget gives every strategy one query for, in an order of the seed."""
    if own > options.budget or (shared and own + shared > options.budget):
        raise DataError(
            f"a budget of {options.budget:,} queries does not suffice for one query of each strategy ({own + shared:,}); "
            "raise --budget, or name fewer with --strategy"
        )
    fits = (options.budget - own) // shared if shared else 0
    drawn = Random(f"{options.seed}:order").sample(range(len(questions)), len(questions))[:fits]
    return [questions[n] for n in sorted(drawn)]


@dataclass(slots=True)
class _Cell:
    """One strategy against one question."""

    strategy: Named
    question: Question
    attack: Attack
    step: int = 0
    last: Seen | None = None

    async def next(self) -> Try | None:
        """Its next query; None where it has ended."""
        try:
            return await (anext(self.attack) if self.last is None else self.attack.asend(self.last))
        except StopAsyncIteration:
            return None


def _kit(options: Options, attacked: Sequence[Question], score: Scorer | None, attacker: Chat | None, result: Result) -> Kit:
    def fault(what: str) -> None:
        result.faults[what] += 1

    return Kit(Random(), options.tries, options.seed, attacked, score, options.scored, attacker, faults=fault)


def _cells(attacked: Sequence[Question], shared: Sequence[Named], own: Sequence[Named], made: Any) -> list[tuple[Named, Question, Kit]]:
    """Question by question, so that a budget that runs out within a round leaves whole questions."""
    kits = {s.name: made() for s in (*shared, *own)}
    pairs = [(s, q) for q in attacked for s in shared] + [(s, q) for s in own for q in s.questions]
    return [(s, q, replace(kits[s.name], rng=Random(f"{kits[s.name].seed}:{s.name}:{q.id}"))) for s, q in pairs]


class _Asking:
    """Queries through the log, several in flight, results in order."""

    def __init__(self, log: Log, classifier: Classifier, options: Options, progress: Progress) -> None:
        self._log, self._options, self._progress = log, options, progress
        self._plain = Judge(classifier)
        self._queries = 0

    async def rubrics(self, questions: Sequence[Question], unguarded: Target, grader: Grader) -> dict[str, Rubric]:
        """By question, made from unguarded answers that comply; a question that is refused there too has none."""
        wanted = [(q, step) for q in questions for step in range(self._options.references)]
        tasks = [partial(self._ask, (UNGUARDED, q.id, step), q.turns, unguarded, 0.7 if step else 0.0) for q, step in wanted]
        answers = await gather(tasks, self._options.limit, self._progress, "unguarded answers")
        by: dict[str, list[str]] = {}
        for (q, _), answer in zip(wanted, answers, strict=True):
            by.setdefault(q.id, []).append("" if answer.blocked or answer.error else answer.text)

        async def made(q: Question) -> Rubric | None:
            texts = [text for text in by[q.id] if text and (await self._plain.judge(q, Answer(text))).outcome == "complied"]
            return await grader.rubric(q, texts) if texts else None

        found = await gather([partial(made, q) for q in questions], self._options.limit, self._progress, "rubrics")
        return {q.id: rubric for q, rubric in zip(questions, found, strict=True) if rubric is not None}

    async def rounds(self, cells: Sequence[_Cell], target: Target, judge: Judge, result: Result) -> None:
        """One query of every attack a round, in the order of the cells."""
        live, limit, budget = list(cells), self._options.limit, self._options.budget
        while live and len(result.attempts) < budget:
            tries = await gather([cell.next for cell in live], limit)
            ready = [(cell, attempt) for cell, attempt in zip(live, tries, strict=True) if attempt is not None]
            ready = ready[: budget - len(result.attempts)]
            done = await gather([partial(self._attempt, cell, attempt, target, judge) for cell, attempt in ready], limit)
            for (cell, attempt), seen in zip(ready, done, strict=True):
                s = cell.strategy
                result.attempts.append(
                    Attempt(
                        len(result.attempts), s.name, s.kind, attempt.family or s.name, cell.question.id, cell.step,
                        attempt.turns, seen.answer, seen.judged,
                    )
                )  # fmt: skip
                cell.last, cell.step = seen, cell.step + 1
            live = [cell for cell, _ in ready]

    async def _attempt(self, cell: _Cell, attempt: Try, target: Target, judge: Judge) -> Seen:
        answer = await self._ask((cell.strategy.name, cell.question.id, cell.step), attempt.turns, target)
        self._progress("attacks", self._queries, self._options.budget)
        return Seen(answer, await judge.judge(cell.question, answer))

    async def _ask(self, key: tuple[str, str, int], turns: Turns, target: Target, temperature: float = 0.0) -> Answer:
        """The logged answer, or a fresh one that is logged before it is used."""
        self._queries += key[0] != UNGUARDED
        known = self._log.get(key, turns)
        if known is not None:
            return known
        answer = await target.ask(turns, self._options.max_tokens, self._options.seed + key[2], temperature)
        self._log.put(key, turns, answer)
        return answer
