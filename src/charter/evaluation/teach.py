"""A clause taught by text, by k labelled requests, and by both: the curve, and when to stop writing rules and start labelling.

Every way is tested on the same requests, none of them kin of one that may be labelled. AUROC is the mean over seeded draws of what is
labelled; its interval resamples the test half, kin together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Clause, Constitution
from charter.embedded import cache_folder
from charter.evaluation.labelled import Labelled
from charter.evaluation.prompted import PromptedClassifier
from charter.evaluation.taught import CHOICES, Choice, by_examples, by_words, ks, order, pooled, standardised, together, words
from charter.llm.chat import Chat
from charter.llm.pool import Progress, gather, quiet
from charter.models.backbone import Backbone
from charter.records import Exchange, Turn
from charter.statistics import Interval, bootstrap
from charter.training.activations import ActivationStore

KS = (1, 2, 5, 10, 20, 50)
DRAWS = 10
RESAMPLED = 200
DEPTHS = (1 / 3, 1 / 2, 2 / 3)
"""Where the backbone is read."""
WORTH = 0.01
"""An AUROC difference below this is not worth a label."""
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Step:
    """AUROC with k labels."""

    k: int
    examples: dict[Choice, Interval]
    both: Interval
    """Text and examples at random together."""
    ahead: Interval
    """Examples at random less text, on the same test requests."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What there is to tell."""

    rule: Interval
    """By the rule's own words on the backbone."""
    judge: Interval | None
    """By a language model that is told the rule; None where none was asked."""
    faults: int
    """Of the judge's answers, those that were no verdict."""
    steps: tuple[Step, ...]
    pool: int
    seed: int
    draws: int
    advice: str = ""

    @property
    def text(self) -> Interval:
        """The better way by text, which examples are compared with: the judge where one was asked."""
        return self.judge or self.rule


def vectors(
    backbone: str, exchanges: Sequence[Exchange], cache: Path | None = None, progress: Callable[[int], None] = lambda _: None
) -> Scores:
    """One vector a request: the mean of its states at DEPTHS, [rows, 3 * width]; kept in the cache between runs."""
    blocks = len(Backbone(backbone).layers)
    reader = Backbone(backbone, tuple(dict.fromkeys(max(1, round(blocks * depth)) for depth in DEPTHS)))
    reader.hurry()
    found = ActivationStore(cache or cache_folder() / "activations", reader).windows(exchanges, "prompt", progress)
    return pooled(found.take(slice(None)), found.owner, len(exchanges))


def rule_words(clause: Clause, counterpart: Clause | None) -> tuple[list[Exchange], int]:
    """The words of both sides as requests, and how many of them are the restricted clause's: they come first."""
    own, other = words(clause), words(counterpart) if counterpart else []
    return [Exchange(f"rule {n}", (Turn("user", text),)) for n, text in enumerate([*own, *other])], len(own)


def curve(
    pool: tuple[Scores, NDArray[np.bool_]],
    test: tuple[Scores, NDArray[np.bool_]],
    kin: NDArray[np.int64],
    rule: tuple[Scores, int],
    judged: tuple[Scores, int] | None,
    seed: int,
    wanted: Sequence[int] = KS,
    draws: int = DRAWS,
) -> Curve:
    """The whole comparison, from vectors.

    Args:
        pool: vectors [rows, inputs] that may be labelled, and their labels.
        test: those that all ways are tested on.
        kin: a number for each test row; kin are resampled together.
        rule: vectors of the rule's words, and how many of them are of what is restricted.
        judged: the judge's scores of the test rows, and how many of its answers were none; None where there is no judge.
        seed: of draws and intervals.
    """
    x, y = standardised(pool[0], pool[0]), pool[1]
    test_x, truth = standardised(test[0], pool[0]), test[1]
    spoken = standardised(rule[0], pool[0])
    by_rule = by_words(test_x, spoken[: rule[1]], spoken[rule[1] :])
    text = by_rule if judged is None else judged[0]
    sizes = ks(wanted, len(x))
    orders = {how: [order(x, y, sizes[-1], how, seed + draw) for draw in range(draws)] for how in CHOICES}

    def interval(scores: Scores) -> Interval:
        return bootstrap(_mean_auroc, truth, scores, seed, RESAMPLED, kin)

    steps = []
    for k in sizes:
        z = {how: np.stack([by_examples(test_x, x[own[:k]], y[own[:k]]) for own in orders[how]], 1) for how in CHOICES}
        both = np.stack([together(text, own) for own in z["random"].T], 1)
        beside = np.column_stack([text, z["random"]])
        ahead = bootstrap(_ahead, truth, beside, seed, RESAMPLED, kin)
        steps.append(Step(k, {how: interval(own) for how, own in z.items()}, interval(both), ahead))
    by_judge, faults = (interval(judged[0][:, None]), judged[1]) if judged else (None, 0)
    found = Curve(interval(by_rule[:, None]), by_judge, faults, tuple(steps), len(x), seed, draws)
    return replace(found, advice=advice(found))


def advice(found: Curve) -> str:
    """One sentence: when to stop writing rules and start labelling, and which requests."""
    name = "the judge that reads the rule" if found.judge else "the rule's own words"
    best = max(found.steps, key=lambda step: _value(step.examples["random"]))
    sure = next((step for step in found.steps if (step.ahead.low or 0.0) > 0), None)
    likely = next((step for step in found.steps if _value(step.ahead) > WORTH), None)
    text, top = _value(found.text), _value(best.examples["random"])
    if sure:
        start = f"Stop writing rules and label: from {sure.k} labelled requests on, examples rank better than {name} ({_of(sure)} against {text:.2f})"
    elif likely:
        start = (
            f"Label on: from {likely.k} labelled requests on, examples look better than {name} ({_of(likely)} against {text:.2f}), but "
            f"{found.text.n} test requests don't tell them apart for sure"
        )
    else:
        start = f"Go on writing the rule: up to {found.steps[-1].k} labelled requests don't rank better than {name} ({top:.2f} against {text:.2f})"
    parts = [start]
    helped = max(found.steps, key=lambda step: _value(step.both))
    if _value(helped.both) > max(text, top) + WORTH:
        parts.append(f"both together do best ({_value(helped.both):.2f} with {helped.k})")
    enough = next(step for step in found.steps if _value(step.examples["random"]) >= top - WORTH)
    if enough.k < found.steps[-1].k:
        parts.append(f"after {enough.k} more labels bring next to nothing")
    informed: Choice = max(("uncertain", "farthest"), key=lambda how: sum(_value(step.examples[how]) for step in found.steps))
    gain = float(np.mean([_value(step.examples[informed]) - _value(step.examples["random"]) for step in found.steps]))
    what = {"uncertain": "those that the examples so far leave most uncertain", "farthest": "those farthest from what is labelled"}[
        informed
    ]
    parts.append(f"label {what} first" if gain > WORTH else "which requests are labelled makes little difference")
    return "; ".join(parts) + "."


async def judged(
    chat: Chat, constitution: Constitution, clause: Clause, test: Labelled, seed: int, limit: int = 8, progress: Progress = quiet
) -> tuple[Scores, int]:
    """Scores of the test requests by a language model that is told the rule, 0 or 1, and how many answers were no verdict.

    Raises:
        TeacherError: it can't be reached, or gives hardly any usable answers.
        BudgetExceeded: a call might pass the cost cap.
    """
    classifier = PromptedClassifier(chat, constitution, clause.id, seed=seed)
    found = await gather([partial(classifier.judge, exchange) for exchange in test.exchanges], limit, progress, "the judge")
    return np.array([judgement.verdict.score for judgement in found]), sum(judgement.fault is not None for judgement in found)


def measure(
    pool: Labelled, test: Labelled, clause: Clause, counterpart: Clause | None, backbone: str, judged: tuple[Scores, int] | None,
    seed: int, draws: int = DRAWS, cache: Path | None = None, progress: Callable[[int], None] = lambda _: None,
) -> Curve:  # fmt: skip
    """Read everything once and compare.

    Raises:
        BackboneError: the backbone can't be loaded.
    """
    spoken, own = rule_words(clause, counterpart)
    read = vectors(backbone, [*pool.exchanges, *test.exchanges, *spoken], cache, progress)
    first, second = len(pool.exchanges), len(pool.exchanges) + len(test.exchanges)
    return curve(
        (read[:first], pool.restricted), (read[first:second], test.restricted), test.kin, (read[second:], own), judged, seed, draws=draws
    )  # fmt: skip


def _mean_auroc(labels: NDArray[np.bool_], scores: Scores) -> float:
    from scipy.stats import rankdata

    positives = int(labels.sum())  # `statistics.auroc`, of all columns at once
    ranks = rankdata(scores, axis=0)[labels].sum(0)
    return float(np.mean((ranks - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))))


def _ahead(labels: NDArray[np.bool_], scores: Scores) -> float:
    """Mean AUROC of all columns but the first, less that of the first."""
    return _mean_auroc(labels, scores[:, 1:]) - _mean_auroc(labels, scores[:, :1])


def _value(interval: Interval) -> float:
    return interval.value or 0.0


def _of(step: Step) -> str:
    return f"{_value(step.examples['random']):.2f}"
