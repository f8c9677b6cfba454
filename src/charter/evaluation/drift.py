"""Does the budget still hold on new harmless traffic? Exact one-sided tests, for each view, over all rows and slice by slice.

The budget is *broken* where so many flags would be improbable if the true rate were the budget (binomial test, p below 5 % after
Holm's correction for the number of groups); it is *certified* where the rate's 95 % Clopper-Pearson bound lies within it; else the rows
are too few to tell, and the answer says how many it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from charter.errors import DataError, NoData
from charter.guard.folder import Guard
from charter.guard.policy import Judge
from charter.guard.recalibrate import ordinary_slices
from charter.models.calibrate import NEAR_MISS
from charter.models.scored import Scored
from charter.records import Exchange, View, parse_turns, read_jsonl
from charter.statistics import Interval, certifiable, clopper_pearson, upper_bound

Finding = Literal["certified", "broken", "too few to tell"]
ALL = "all rows"
NEAR = "near misses"
ALARM = 0.05
"""Chance of any false alarm in a check while the budget holds."""
WINDOW = 512
"""Rows sorted by length together: padding nearly vanishes, and memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Group:
    """Harmless rows of one view that are tested together."""

    name: str
    n: int
    flagged: int
    budget: float
    rate: Interval
    """Two-sided, exact."""
    bound: float
    """One-sided 95 % upper bound of the rate."""
    p: float
    """Probability of so many flags or more if the true rate were the budget."""
    p_adjusted: float
    """The same after Holm's correction for all groups of the check."""

    @property
    def finding(self) -> Finding:
        if self.p_adjusted < ALARM:
            return "broken"
        return "certified" if self.bound <= self.budget else "too few to tell"

    @property
    def sentence(self) -> str:
        said = f"{self.name}: {self.flagged:,} of {self.n:,} flagged, at most {self.bound:.2%} with 95 % confidence"
        match self.finding:
            case "broken":
                return f"{said}: the budget of {self.budget:.2%} no longer holds (p = {self.p_adjusted:.2g})."
            case "certified":
                return f"{said}: the budget of {self.budget:.2%} holds."
        few = f"; it takes {certifiable(self.budget):,} rows without a flag to certify it" if self.n < certifiable(self.budget) else ""
        return f"{said}: nothing shows that the budget of {self.budget:.2%} is exceeded, and nothing certifies it (p = {self.p_adjusted:.2g}){few}."


@dataclass(frozen=True, slots=True)
class Check:
    """What new traffic says of a guard."""

    views: dict[View, tuple[Group, ...]]
    """All rows of ordinary traffic first, the near misses and the slices after them."""
    too_long: int
    """Rows longer than the backbone's context, which the failure policy decides on: not counted."""

    @property
    def holds(self) -> bool:
        """Whether no group shows the budget to be broken."""
        return all(group.finding != "broken" for groups in self.views.values() for group in groups)


@dataclass(frozen=True, slots=True)
class Row:
    """A harmless exchange and where it comes from; None where the file doesn't say."""

    exchange: Exchange
    slice: str | None


def read_traffic(path: Path) -> Iterator[Row]:
    """Rows {"messages", and perhaps "id", "slice" or "category"} of a JSONL file of harmless traffic.

    Raises:
        DataError: a line can't be read, or is labelled as anything but harmless; names the line.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of traffic")
    for number, row in read_jsonl(path):
        where = f"{path}:{number}"
        label = row.get("label")
        if label not in (None, "safe", "benign"):
            raise DataError(f"{where}: is labelled {label!r}; a budget is checked on harmless traffic only, so leave the row out")
        slice_ = row.get("slice") or row.get("category")
        if slice_ is not None and not isinstance(slice_, str):
            raise DataError(f"{where}: its slice or category must be a word")
        turns = parse_turns(row.get("messages"), where)
        try:
            "".join(t.role + t.content for t in turns).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{where}: a message holds half of a surrogate pair, which is no text; mend the escape in that row") from error
        yield Row(Exchange(str(row.get("id", number)), turns), slice_)


def check(guard: Guard, rows: Iterable[Row], progress: Callable[[int], None] = lambda _: None) -> Check:
    """Score harmless rows as they are served, prompt and reply apart, and test the guard's budgets on them.

    Raises:
        NoData: there is no row that can be scored.
    """
    flags: dict[View, dict[str, list[bool]]] = {view: {} for view in guard.cascade.views}
    too_long = 0
    rest = iter(rows)
    while window := list(islice(rest, WINDOW)):
        fitting = _fitting(guard, window)
        too_long += len(window) - len(fitting)
        for row, scored in zip(fitting, guard.cascade.batch(row.exchange for row in fitting), strict=True):
            for view, flagged in _flagged(guard, scored):
                flags[view].setdefault(row.slice or "", []).append(flagged)
        progress(len(window))
    if not any(flags.values()):
        raise NoData("the traffic has no row that can be scored")
    return Check(against_budgets(guard, flags), too_long)


def against_budgets(guard: Guard, flags: Mapping[View, Mapping[str, list[bool]]]) -> dict[View, tuple[Group, ...]]:
    """Flags by view and slice ("": unknown) to groups with their tests, corrected over all views and groups."""
    ordinary = ordinary_slices(guard.constitution)
    budget, near_budget = guard.budgets
    counts: list[tuple[View, str, int, int, float]] = []
    for view, slices in flags.items():
        near = {name: f for name, f in slices.items() if name.startswith(NEAR_MISS) and name not in ordinary}
        traffic = {name: f for name, f in slices.items() if name not in near}
        pools = ((ALL, traffic, budget), (NEAR, near, near_budget))
        for name, pool, rate in pools:
            if pool:
                counts.append((view, name, sum(map(len, pool.values())), sum(map(sum, pool.values())), rate))
        counts += [(view, name, len(f), sum(f), budget) for name, f in sorted(traffic.items()) if name and len(traffic) > 1]
    p = [_p(flagged, n, rate) for _, _, n, flagged, rate in counts]
    out: dict[View, tuple[Group, ...]] = {}
    for (view, name, n, flagged, rate), raw, adjusted in zip(counts, p, holm(p), strict=True):
        group = Group(name, n, flagged, rate, clopper_pearson(flagged, n), upper_bound(flagged, n), raw, adjusted)
        out[view] = (*out.get(view, ()), group)
    return out


def holm(p: list[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): rejecting those below a level keeps the chance of any false alarm below it."""
    out = [1.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        out[place] = highest
    return out


def as_dict(guard: Guard, found: Check) -> dict[str, Any]:
    """For machines."""
    groups = {
        view: {
            g.name: {
                "n": g.n,
                "flagged": g.flagged,
                "rate": g.rate.as_dict(),
                "budget": g.budget,
                "bound": g.bound,
                "p": g.p,
                "p_adjusted": g.p_adjusted,
                "finding": g.finding,
            }
            for g in groups
        }
        for view, groups in found.views.items()
    }
    return {"guard": {"name": guard.name, "hash": guard.hash}, "holds": found.holds, "views": groups, "too_long": found.too_long}


def _p(flagged: int, n: int, rate: float) -> float:
    """P(X >= flagged) for X ~ Binomial(n, rate)."""
    from scipy.stats import binom

    return float(binom.sf(flagged - 1, n, rate))


def _fitting(guard: Guard, rows: list[Row]) -> list[Row]:
    """Those no longer than the context, by length."""
    encoder, context = guard.cascade.backbone.encoder, guard.cascade.backbone.context
    lengths = [sum(len(piece.ids) for turn in row.exchange.turns for piece in encoder.turn(turn)) for row in rows]
    order = sorted((n for n in range(len(rows)) if lengths[n] <= context), key=lengths.__getitem__)
    return [rows[n] for n in order]


def _flagged(guard: Guard, scored: Scored) -> Iterator[tuple[View, bool]]:
    """Whether each view flags its part of an exchange; a view without a part says nothing."""
    for view in guard.cascade.views:
        logits = scored.logits(view)
        if logits is not None and len(logits):
            judge = Judge(guard.policies[view], guard.clauses)
            for z in logits:
                judge.push(z)
            yield view, judge.verdict.flagged
