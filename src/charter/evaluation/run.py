"""Sets in, one verdict for each item out: batched by length, and resumable, because the pass over the data is the slow part.

Every verdict is appended to a file as it is made, keyed by the guard's hash and the text's, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray

from charter.errors import DataError, NoData
from charter.evaluation.datasets import KINDS, Item, Set
from charter.guard.folder import Guard
from charter.models.lanes import BATCH_TOKENS
from charter.models.scored import Scored
from charter.models.threads import numpy_alone, side_by_side
from charter.records import Exchange, Verdict, View, parse_object

WINDOW = 512
"""Rows sorted by length together: padding nearly vanishes, and memory stays bounded."""
ARITHMETIC = 3
"""Raised where the same guard scores a text otherwise than before; older scores are then made again."""
TOO_LONG = "longer than can be read in windows"
Part = list[tuple[str, Exchange]]
"""Exchanges by their keys."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the guard found in one item. The verdict's score is the highest calibrated probability over all scored tokens."""

    verdict: Verdict
    tokens: int
    """That the verdict rests on."""
    length: int = 0
    """All tokens of the exchange, marks included; 0 where an older run did not count them."""
    read: tuple[int, ...] = ()
    """How many of them each stage after the screen has read."""
    by: Mapping[View, tuple[bool, float]] = field(default_factory=dict)
    """Whether each view flags it, and its score, where more than one judges it."""


@dataclass(frozen=True, slots=True)
class SetResult:
    """A set and its outcomes, in the same order."""

    name: str
    kind: str
    items: tuple[Item, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def view(self) -> View:
        return KINDS[self.kind]

    @property
    def labels(self) -> NDArray[np.bool_]:
        return np.array([item.positive for item in self.items], bool)

    @property
    def scores(self) -> NDArray[np.float64]:
        return np.array([outcome.verdict.score for outcome in self.outcomes])

    @property
    def flagged(self) -> NDArray[np.bool_]:
        return np.array([outcome.verdict.flagged for outcome in self.outcomes], bool)


@dataclass(frozen=True, slots=True)
class Results:
    """All that a guard found, before anything is computed from it."""

    guard_hash: str
    seed: int
    sets: tuple[SetResult, ...]
    left_out: dict[str, dict[str, int]]
    """Set to reason to the number of rows that were not scored."""
    precision: str = "float32"
    """Of the backbone's weights."""

    def windowed(self, context: int) -> dict[str, int]:
        """Set to the number of its items that were longer than the context and read in overlapping windows; sets without any left out."""
        found = {s.name: sum(outcome.length > context for outcome in s.outcomes) for s in self.sets}
        return {name: n for name, n in found.items() if n}

    def __getitem__(self, name: str) -> SetResult:
        return next(s for s in self.sets if s.name == name)


def evaluate(
    guard: Guard,
    sets: Sequence[Set],
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
    scores: Path | None = None,
) -> Results:
    """Score every item of every set.

    Args:
        seed: kept in the results, for whatever draws from them.
        progress: called with the number of items done since the last call.
        scores: JSONL file of verdicts already made, continued in place; nothing is kept where None.

    Raises:
        NoData: no set has an item that can be scored.
        DataError: two sets share a name, or the file of scores is not one.
    """
    names = [s.name for s in sets]
    if len(set(names)) < len(names):
        raise DataError(f"two sets are named {next(n for n in names if names.count(n) > 1)!r}; rename one of them")
    if not any(s.items for s in sets):
        raise NoData("no row of the data can be scored: kinds prompt, response and injection with labels harmful, safe or benign count")
    known = _recover(scores) if scores else {}
    left_out = {s.name: dict(s.left_out) for s in sets}
    precision = guard.cascade.backbone.dtype
    results = []
    with numpy_alone(), _appending(scores) as file:
        parts = _parts(guard, sets, set(known), progress)
        for found in side_by_side(lambda part: _scored(guard, part), parts, _threads(guard)):
            for key, outcome in found:
                known[key] = outcome
                if file:
                    file.write(_line(key, outcome) + "\n")
                progress(1)
    for s in sets:
        pairs = [(item, known.get(_key(guard, s.view, item.exchange))) for item in s.items]
        scored = [(item, outcome) for item, outcome in pairs if outcome]
        if len(scored) < len(pairs):
            left_out[s.name][TOO_LONG] = len(pairs) - len(scored)
        if scored:
            items, outcomes = zip(*scored, strict=True)
            results.append(SetResult(s.name, s.kind, items, outcomes))
    return Results(guard.hash, seed, tuple(results), {name: reasons for name, reasons in left_out.items() if reasons}, precision)


def _parts(guard: Guard, sets: Sequence[Set], known: set[str], progress: Callable[[int], None]) -> Iterator[Part]:
    """What is left to score, in parts of one forward each."""
    for s in sets:
        for start in range(0, len(s.items), WINDOW):
            items = s.items[start : start + WINDOW]
            todo = {key: item.exchange for item in items if (key := _key(guard, s.view, item.exchange)) not in known}
            known |= todo.keys()
            sized = ((guard.cascade.length(exchange), key) for key, exchange in todo.items())
            fitting = sorted((length, key) for length, key in sized if length <= guard.cascade.longest)
            progress(len(items) - len(fitting))
            part: Part = []
            for length, key in fitting:
                if part and length * (len(part) + 1) > BATCH_TOKENS:
                    yield part
                    part = []
                part.append((key, todo[key]))
            if part:
                yield part


def _scored(guard: Guard, part: Part) -> list[tuple[str, Outcome]]:
    found = guard.cascade.batch((exchange for _, exchange in part), prompts=False)
    return [(key, _outcome(guard, scored)) for (key, _), scored in zip(part, found, strict=True)]


def _outcome(guard: Guard, scored: Scored) -> Outcome:
    judge = guard.judged(scored)
    by = {view: (v.flagged, v.score) for view, v in judge.verdicts.items()} if len(judge.verdicts) > 1 else {}
    return Outcome(judge.verdict, len(scored.judged_texts), scored.tokens, scored.read, by)


def _threads(guard: Guard) -> int:
    """A thread a core; one where forwards wait for one another."""
    return torch.get_num_threads() if all(stage.backbone.plain for stage in guard.cascade.stages) else 1


def _line(key: str, outcome: Outcome) -> str:
    counts = {"tokens": outcome.tokens, "length": outcome.length, "read": outcome.read, **({"by": outcome.by} if outcome.by else {})}
    return json.dumps({"key": key, **asdict(outcome.verdict), **counts})


def _key(guard: Guard, view: View, exchange: Exchange) -> str:
    precision = guard.cascade.backbone.dtype
    who = f"{guard.hash}-{ARITHMETIC}" if precision == "float32" else f"{guard.hash}-{ARITHMETIC}-{precision}"
    text = json.dumps([who, view, [[t.role, t.content] for t in exchange.turns]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _recover(path: Path) -> dict[str, Outcome]:
    """Outcomes of an earlier run. A line cut off by a kill is dropped, from the file as well."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    return dict(_outcomes(data[:whole], path))


def _outcomes(data: bytes, path: Path) -> Iterator[tuple[str, Outcome]]:
    for number, line in enumerate(data.decode("utf-8", errors="replace").split("\n")[:-1], 1):
        row = parse_object(line, f"{path}:{number}")
        try:
            verdict = Verdict(row["flagged"], float(row["score"]), row["clause"], row["position"])
            by = {view: (bool(flagged), float(score)) for view, (flagged, score) in row.get("by", {}).items()}
            yield row["key"], Outcome(verdict, row["tokens"], row.get("length", 0), tuple(row.get("read", ())), by)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}:{number}: not a line of scores; remove the file to score everything again") from error


def _appending(path: Path | None) -> IO[str] | nullcontext[None]:
    """The file of scores, a line at a time on disk."""
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="utf-8", buffering=1)
