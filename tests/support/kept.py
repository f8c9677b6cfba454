"""A guard that keeps its dev scores, without a backbone: enough to move thresholds, not to score."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from charter.constitution import parse
from charter.guard.calibration import tensors
from charter.guard.recalibrate import balanced
from charter.guard.record import GuardRecord, SliceEvidence, ViewRecord
from charter.guard.writing import save
from charter.models.recalibrate import DevScores, point

CLAUSES = ("locks", "potions")
SLICES = ("chat", "permitted:locksmiths", "restricted:locks", "permitted:gardens")
CONSTITUTION = """\
name: three-clauses
version: 3
purpose: A constitution for tests.
clauses:
  - {id: locks, side: restricted, title: Opening locks, text: Ways into a house., counterpart: locksmiths, examples: [a]}
  - {id: potions, side: restricted, title: Brewing potions, text: Recipes for potions., counterpart: locksmiths, examples: [b]}
  - {id: locksmiths, side: permitted, title: The trade of locksmiths, text: How locks work., examples: [c]}
  - {id: gardens, side: permitted, title: Gardens, text: How roses grow., examples: [d]}
"""
BUDGETS = 0.05, 0.2


def dev_scores(seed: int, rows: int = 900) -> DevScores:
    """A third of the rows restricted, each by one clause; the clause's own head is surer than the overall one."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((rows, 3), bool)
    labels[: rows // 3, 0] = True
    labels[np.arange(rows // 3), 1 + np.arange(rows // 3) % 2] = True
    logits = rng.normal(-3, 1, (rows, 3)) + labels * np.array([2.0, 4.0, 4.0])
    return DevScores(logits.astype(np.float32), labels, SLICES, rng.integers(0, len(SLICES), rows).astype(np.int32))


def save_kept(folder: Path, keep: bool = True) -> Path:
    """The guard; without its dev scores where `keep` is false, as older guards are."""
    dev = {"prompt": dev_scores(1), "exchange": dev_scores(2)}
    views = {}
    for view, scores in dev.items():
        at = point(scores, *BUDGETS, {}, {"permitted:gardens"})
        views[view] = ViewRecord(
            threshold=at.calibration.threshold, temperature=at.temperature, offset=at.offset, mix=0.5, certified=at.calibration.certified,
            sentence=at.calibration.sentence, slices=list(SLICES) if keep else [],
            evidence={name: SliceEvidence(n=e.n, flagged=e.flagged, bound=e.bound) for name, e in at.calibration.evidence.items()},
        )  # fmt: skip
    record = GuardRecord(
        name=folder.name, constitution="three-clauses", constitution_hash=parse(CONSTITUTION, "x").hash, budget=BUDGETS[0],
        near_miss_budget=BUDGETS[1], seed=0, backbone="embedded", backbone_fingerprint="none", layers=[2], clauses=list(CLAUSES), views=views,
        n_examples={"prompt dev": 900}, balanced=balanced(dev, CLAUSES, BUDGETS, {}, {"permitted:gardens"}) if keep else None,  # type: ignore[arg-type]
    )  # fmt: skip
    arrays = {stem: {"prompt.bias": np.arange(3, dtype=np.float32)} for stem in ("probe", "screen")}
    if keep:
        arrays["calibration"] = tensors(dev)  # type: ignore[arg-type]
    save(folder, record, CONSTITUTION, arrays, "# A guard for tests\n")
    return folder
