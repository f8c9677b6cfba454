"""A guard with its thresholds moved to other budgets, from the dev scores that it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from charter.constitution import Constitution, parse
from charter.errors import DataError, GuardError
from charter.guard import calibration
from charter.guard.card import card
from charter.guard.folder import ClauseRecord, GuardRecord, SliceEvidence, ViewRecord, amend, read_record
from charter.guard.shipped import is_shipped, place
from charter.models.calibrate import Calibration
from charter.models.recalibrate import DevScores, Point, point, recall
from charter.records import View
from charter.statistics import Interval


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
    fresh: Mapping[View, DevScores] | None = None,
) -> Recalibration:  # fmt: skip
    """Write a guard with thresholds that keep other budgets; `out` may be the same folder.

    Args:
        budget: share of ordinary traffic that may be refused; None: the guard's own.
        near_miss_budget: the same for near misses.
        own: clause to a budget of its own, 0 to take one away; clauses that are not named keep theirs.
        fresh: dev scores of the same heads, in place of those that the guard keeps.

    Raises:
        GuardError: the folder is no guard, or keeps no dev scores and none are given.
        DataError: a clause has no head, or no restricted dev exchange in any view; the clauses' budgets are more than the guard's.
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
    name = record.name if out.resolve() == folder.resolve() else out.name
    changed = record.model_copy(update={"name": name, "budget": budgets[0], "near_miss_budget": budgets[1], "views": views})
    amend(folder, out, changed, calibration.tensors(dev), card(changed, constitution))
    return Recalibration(changed, moved)


def ordinary_slices(constitution: Constitution) -> frozenset[str]:
    """Slices of permitted clauses that are nobody's counterpart: ordinary traffic, not near misses."""
    near = {c.counterpart for c in constitution.restricted}
    return frozenset(f"permitted:{c.id}" for c in constitution.permitted if c.id not in near)


def evidence(found: Calibration) -> dict[str, SliceEvidence]:
    """As guard.json keeps it."""
    return {name: SliceEvidence(n=e.n, flagged=e.flagged, bound=e.bound) for name, e in found.evidence.items()}


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


def _view(old: ViewRecord, found: Point, clauses: list[str], slices: tuple[str, ...]) -> ViewRecord:
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
    return ViewRecord(
        threshold=min(found.calibration.threshold, 1.0),
        temperature=found.temperature,
        offset=found.offset,
        mix=old.mix,
        certified=found.calibration.certified,
        sentence=found.calibration.sentence,
        evidence=evidence(found.calibration),
        clauses=own,
        slices=list(slices),
    )


def _moved(old: ViewRecord, new: ViewRecord, clauses: list[str], dev: DevScores) -> Moved:
    before, after = old.policy(clauses), new.policy(clauses)

    def both(head: int) -> tuple[Interval, Interval]:
        return recall(dev, before, head), recall(dev, after, head)

    return Moved((old.threshold, new.threshold), both(0), {name: both(1 + clauses.index(name)) for name in new.clauses})
