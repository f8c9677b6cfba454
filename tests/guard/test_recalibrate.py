"""Thresholds move to other budgets and back, the scorers stay as they are, and a clause may have a budget of its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept import BUDGETS, CONSTITUTION, dev_scores, save_kept

from charter.constitution import parse
from charter.errors import DataError, GuardError
from charter.guard.calibration import FILE, read
from charter.guard.folder import read_record
from charter.guard.recalibrate import BALANCED, balanced, ordinary_slices, recalibrate
from charter.models.recalibrate import recall
from charter.statistics import upper_bound


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_kept(tmp_path / "guard")


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_budgets_give_the_same_guard(folder: Path) -> None:
    before = _contents(folder)
    recalibrate(folder, folder)
    after = _contents(folder)
    assert {name for name in before if before[name] != after[name]} == {"guard.json", "card.md"}, (
        "the card of the fixture is not a real one"
    )
    recalibrate(folder, folder)
    assert _contents(folder) == after
    old, new = json.loads(before["guard.json"]), json.loads(after["guard.json"])
    assert old.pop("files").keys() == new.pop("files").keys()
    assert old == new


def test_other_budgets_and_back_again_leave_no_trace(folder: Path) -> None:
    recalibrate(folder, folder)
    before = _contents(folder)
    moved = recalibrate(folder, folder, budget=0.02, near_miss_budget=0.1, own={"locks": 0.01}).moved
    assert all(m.threshold[1] > m.threshold[0] for m in moved.values())
    assert _contents(folder) != before
    recalibrate(folder, folder, *BUDGETS, own={"locks": 0})
    assert _contents(folder) == before


def test_another_folder_gets_the_new_guard_and_the_old_one_stays(folder: Path, tmp_path: Path) -> None:
    before = _contents(folder)
    recalibrate(folder, tmp_path / "strict", budget=0.02)
    assert _contents(folder) == before
    record, digest = read_record(tmp_path / "strict")
    assert (record.name, record.budget, record.near_miss_budget) == ("strict", 0.02, BUDGETS[1])
    assert digest != read_record(folder)[1]
    for name in ("probe.safetensors", "screen.safetensors", "constitution.yaml", FILE):
        assert (tmp_path / "strict" / name).read_bytes() == before[name]


def test_the_balanced_point_keeps_its_own_budgets_and_finds_more(folder: Path) -> None:
    record = recalibrate(folder, folder, balanced_budget=0.3, own={"potions": 0.02}).record
    second = record.balanced
    assert second is not None
    assert (second.budget, second.near_miss_budget) == (0.3, pytest.approx(0.75))
    dev = read(folder, record)
    for view, point in record.views.items():
        at = second.views[view]
        assert at.threshold < point.threshold
        assert {name: own.budget for name, own in at.clauses.items()} == {"potions": pytest.approx(0.02 * 0.3 / BUDGETS[0])}
        scores, harmless = dev[view], ~dev[view].labels[:, 0]
        for policy, limits in ((point.policy(record.clauses), BUDGETS), (point.policy(record.clauses, at), (0.3, 0.75))):
            flagged = policy.fires(policy.probability(scores.logits))
            near = np.isin(scores.slice_of, [1, 2])
            for group, limit in ((~near & harmless, limits[0]), (near & harmless, limits[1])):
                assert flagged[group].mean() <= limit
        first, more = (recall(scores, point.policy(record.clauses, t)).value for t in (point, at))
        assert more > first
    card = (folder / "card.md").read_text()
    assert card.index("### `quiet`") < card.index("### `balanced`")
    assert "Budget: 30.00% of ordinary traffic, 75.00% of near misses" in card
    assert recalibrate(folder, folder).record.balanced == second  # its budget is kept
    assert recalibrate(folder, folder, budget=0.4, near_miss_budget=0.5).record.balanced.budget == 0.4  # it never finds less


@given(budget=st.floats(1e-6, 0.5), near=st.floats(1e-6, 0.9), asked=st.none() | st.floats(1e-6, 0.5))
def test_the_balanced_budgets_are_never_below_the_quiet_ones(budget: float, near: float, asked: float | None) -> None:
    dev = {"prompt": dev_scores(1, 60)}
    if asked is not None and asked < budget:
        with pytest.raises(DataError, match="is less than the guard's own"):
            balanced(dev, ("locks", "potions"), (budget, near), {}, (), asked)
        return
    found = balanced(dev, ("locks", "potions"), (budget, near), {}, (), asked)
    assert found.budget == (asked or max(BALANCED, budget))
    assert near <= found.near_miss_budget <= 0.9
    assert set(found.views) == {"prompt"}


def test_the_evidence_is_what_the_thresholds_do_to_the_harmless_rows(folder: Path) -> None:
    found = recalibrate(folder, folder, budget=0.04, own={"potions": 0.02}).record
    dev = read(folder, found)
    for view, point in found.views.items():
        policy = point.policy(found.clauses)
        assert set(point.clauses) == {"potions"}
        assert policy.clause_thresholds[0] > 1
        p, harmless = policy.probability(dev[view].logits), ~dev[view].labels[:, 0]
        flagged = policy.fires(p) & harmless
        assert sum(e.flagged for e in point.evidence.values()) == flagged.sum()
        assert all(e.bound == upper_bound(e.flagged, e.n) for e in point.evidence.values())
        own = point.clauses["potions"]
        assert sum(e.flagged for e in own.evidence.values()) == ((p[:, 2] >= own.threshold) & harmless).sum()
        near = sum(e.flagged for name, e in point.evidence.items() if name.startswith("near"))
        expected = flagged & np.isin(dev[view].slice_of, [1, 2])  # permitted:gardens is nobody's counterpart
        assert near == expected.sum()


def test_a_clauses_own_budget_finds_more_of_it_and_the_card_says_so(folder: Path) -> None:
    moved = recalibrate(folder, folder, budget=0.05, own={"locks": 0.02}).moved
    for found in moved.values():
        before, after = found.own["locks"]
        assert before.n == after.n == 150
        assert after.value > before.value  # its head is surer than the overall one
    card = (folder / "card.md").read_text()
    assert "| locks | 2.00% |" in card
    assert "threshold of their own" in card


def test_clauses_that_are_not_named_keep_their_budgets(folder: Path) -> None:
    recalibrate(folder, folder, own={"locks": 0.02})
    record = recalibrate(folder, folder, budget=0.06, own={"potions": 0.01}).record
    for point in record.views.values():
        assert {name: own.budget for name, own in point.clauses.items()} == {"locks": 0.02, "potions": 0.01}
    record = recalibrate(folder, folder, own={"locks": 0, "potions": 0}).record
    assert not any(point.clauses for point in record.views.values())


def test_mistakes_are_told_and_change_nothing(folder: Path, tmp_path: Path) -> None:
    before = _contents(folder)
    with pytest.raises(DataError, match="no head for the clause 'dragons'.*locks, potions"):
        recalibrate(folder, folder, own={"dragons": 0.01})
    with pytest.raises(DataError, match="lower the clauses' budgets"):
        recalibrate(folder, folder, budget=0.01, own={"locks": 0.3})
    assert _contents(folder) == before
    with pytest.raises(GuardError, match="--data"):
        recalibrate(save_kept(tmp_path / "older", keep=False), tmp_path / "new")
    with pytest.raises(GuardError, match="not a guard"):
        recalibrate(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_fresh_scores_make_an_older_guard_one_that_keeps_them(tmp_path: Path) -> None:
    folder = save_kept(tmp_path / "older", keep=False)
    fresh = {"prompt": dev_scores(7), "exchange": dev_scores(8)}
    first = recalibrate(folder, folder, fresh=fresh).record  # type: ignore[arg-type]
    assert recalibrate(folder, folder).record.views == first.views


def test_a_clause_without_a_restricted_dev_row_can_not_have_a_threshold(folder: Path, tmp_path: Path) -> None:
    fresh = {"prompt": dev_scores(1), "exchange": dev_scores(2)}
    for scores in fresh.values():
        scores.labels[:, 2] = False
    with pytest.raises(DataError, match="no restricted dev exchange of the clause 'potions'"):
        recalibrate(folder, tmp_path / "new", own={"potions": 0.02}, fresh=fresh)  # type: ignore[arg-type]


def test_permitted_clauses_that_are_nobodys_counterpart_are_ordinary_traffic() -> None:
    assert ordinary_slices(parse(CONSTITUTION, "x")) == {"permitted:gardens"}
