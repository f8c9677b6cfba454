"""A guard with its thresholds moved to other budgets, from the dev scores that it keeps; and the second operating point.

A guard has two: `quiet`, by its budgets, and `balanced`, which may refuse more harmless exchanges and finds more. Both are thresholds on the same scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from charter.constitution import Constitution, parse
from charter.errors import DataError, GuardError
from charter.guard import calibration
from charter.guard.card import card
from charter.guard.folder import read_record
from charter.guard.record import ClauseRecord, GuardRecord, PointRecord, SliceEvidence, Thresholds, ViewRecord
from charter.guard.shipped import is_shipped, place
from charter.guard.writing import amend
from charter.models.calibrate import Calibration
from charter.models.recalibrate import DevScores, Point, point, recall
from charter.records import View
from charter.statistics import Interval

BALANCED = 0.13
"""Budget of the balanced point; the guard's own where that is larger."""
BALANCED_NEAR_MISSES = 2.5
"""Its budget for near misses, as a multiple; the guard's own where that is larger."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a recalibration did to one view."""

    threshold: tuple[float, float]
    """Before and after."""
    recall: tuple[Interval, Interval]
    """Share of the dev split's restricted exchanges that is flagged, before and after."""
    own: dict[str, tuple[Interval, Interval]]
    """The same of the clauses with a threshold of their own."""


@dataclass(frozen=True, slots=True)
class Recalibration:
    """The guard's new record, and what changed in each view."""

    record: GuardRecord
    moved: dict[View, Moved]


def recalibrate(
    folder: Path, out: Path, budget: float | None = None, near_miss_budget: float | None = None, own: Mapping[str, float] | None = None,
    fresh: Mapping[View, DevScores] | None = None, balanced_budget: float | None = None,
) -> Recalibration:  # fmt: skip
    """Write a guard with thresholds that keep other budgets, at both operating points; `out` may be the same folder.

    Args:
        budget: share of ordinary traffic that may be refused; None: the guard's own.
        near_miss_budget: the same for near misses.
        own: clause to a budget of its own, 0 to take one away; clauses that are not named keep theirs.
        fresh: dev scores of the same heads, in place of those that the guard keeps.
        balanced_budget: of the balanced point; None: as it is.

    Raises:
        GuardError: the folder is no guard, or keeps no dev scores and none are given.
        DataError: a clause has no head, or no restricted dev exchange in any view; the clauses' budgets are more than the guard's,
            or the guard's is more than the balanced point's.
    """
    folder = place(folder)
    if is_shipped(out) or (out != folder and place(out) == folder):
        raise GuardError(f"{out}: is a shipped guard, which stays as it is; write the changed one to a folder with --out")
    record, _ = read_record(folder)
    constitution = parse((folder / "constitution.yaml").read_text(encoding="utf-8"), str(folder / "constitution.yaml"))
    dev = dict(fresh) if fresh else calibration.read(folder, record)
    budgets = budget or record.budget, near_miss_budget or record.near_miss_budget
    wanted = _own(record, own or {}, dev)
    ordinary = ordinary_slices(constitution)
    views: dict[View, ViewRecord] = {}
    moved: dict[View, Moved] = {}
    for view, old in record.views.items():
        found = point(dev[view], *budgets, {record.clauses.index(name): rate for name, rate in wanted.items()}, ordinary)
        views[view] = _view(old, found, record.clauses, dev[view].names)
        moved[view] = _moved(old, views[view], record.clauses, dev[view])
    if balanced_budget is None and record.balanced:
        balanced_budget = max(record.balanced.budget, budgets[0])
    second = balanced(dev, record.clauses, budgets, wanted, ordinary, balanced_budget)
    name = record.name if out.resolve() == folder.resolve() else out.name
    update = {"name": name, "budget": budgets[0], "near_miss_budget": budgets[1], "views": views, "balanced": second}
    changed = record.model_copy(update=update)
    amend(folder, out, changed, calibration.tensors(dev), card(changed, constitution))
    return Recalibration(changed, moved)


def ordinary_slices(constitution: Constitution) -> frozenset[str]:
    """Slices of permitted clauses that are nobody's counterpart: ordinary traffic, not near misses."""
    near = {c.counterpart for c in constitution.restricted}
    return frozenset(f"permitted:{c.id}" for c in constitution.permitted if c.id not in near)


def evidence(found: Calibration) -> dict[str, SliceEvidence]:
    """As guard.json keeps it."""
    return {name: SliceEvidence(n=e.n, flagged=e.flagged, bound=e.bound) for name, e in found.evidence.items()}


def thresholds(found: Point, clauses: Sequence[str]) -> Thresholds:
    """As guard.json keeps them."""
    own = {
        clauses[n]: ClauseRecord(
            threshold=min(o.calibration.threshold, 1.0),
            budget=o.budget,
            certified=o.calibration.certified,
            sentence=o.calibration.sentence,
            evidence=evidence(o.calibration),
        )
        for n, o in sorted(found.own.items())
    }
    c = found.calibration
    return Thresholds(
        threshold=min(c.threshold, 1.0), certified=c.certified, sentence=c.sentence, evidence=evidence(c), clauses=own
    )  # fmt: skip


def balanced(
    dev: Mapping[View, DevScores], clauses: Sequence[str], budgets: tuple[float, float], own: Mapping[str, float],
    ordinary: Collection[str], budget: float | None = None,
) -> PointRecord:  # fmt: skip
    """The balanced operating point. Clauses with a budget of their own keep their share of the whole.

    Args:
        budgets: the guard's own, of ordinary traffic and of near misses.
        budget: of ordinary traffic; None for BALANCED.

    Raises:
        DataError: it is less than the guard's own.
    """
    least, near = budgets
    check_balanced(least, budget)
    budget = max(BALANCED, least) if budget is None else budget
    near = min(0.9, max(near, BALANCED_NEAR_MISSES * budget))
    wider = {clauses.index(name): rate * budget / least for name, rate in own.items()}
    found = {view: thresholds(point(scores, budget, near, wider, ordinary, least), clauses) for view, scores in dev.items()}
    return PointRecord(budget=budget, near_miss_budget=near, views=found)


def check_balanced(budget: float, balanced_budget: float | None) -> None:
    """Refuse a balanced point that would find less than the quiet one.

    Raises:
        DataError: its budget is less.
    """
    if balanced_budget is not None and balanced_budget < budget:
        raise DataError(
            f"the balanced point's budget of {balanced_budget:.2%} is less than the guard's own, {budget:.2%}; "
            "raise the one or lower the other"
        )


def _own(record: GuardRecord, asked: Mapping[str, float], dev: Mapping[View, DevScores]) -> dict[str, float]:
    """The budgets of single clauses: those that the guard has, changed as asked."""
    known = {name: own.budget for view in record.views.values() for name, own in view.clauses.items()}
    for name in asked:
        if name not in record.clauses:
            heads = ", ".join(record.clauses) or "none"
            raise DataError(f"no head for the clause {name!r}, so it can't have a threshold of its own; clauses with a head: {heads}")
        if not any(scores.labels[:, 1 + record.clauses.index(name)].any() for scores in dev.values()):
            raise DataError(
                f"no restricted dev exchange of the clause {name!r}, so nothing says where its threshold should be; synthesize more"
            )
    return {name: rate for name, rate in {**known, **asked}.items() if rate > 0}


def _view(old: ViewRecord, found: Point, clauses: Sequence[str], slices: tuple[str, ...]) -> ViewRecord:
    scale = {"temperature": found.temperature, "offset": found.offset, "slices": list(slices)}
    return old.model_copy(update={**dict(thresholds(found, clauses)), **scale})


def _moved(old: ViewRecord, new: ViewRecord, clauses: Sequence[str], dev: DevScores) -> Moved:
    before, after = old.policy(clauses), new.policy(clauses)

    def both(head: int) -> tuple[Interval, Interval]:
        return recall(dev, before, head), recall(dev, after, head)

    return Moved((old.threshold, new.threshold), both(0), {name: both(1 + clauses.index(name)) for name in new.clauses})
