"""A guard with a value head and two operating points round-trips; a head that does not belong to it is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads import CLAUSES, random_change

from charter.constitution import parse
from charter.errors import BackboneError, CharterError, GuardError
from charter.guard.folder import load, read_record
from charter.guard.record import GateRecord, GuardRecord, HeadRecord, PointRecord, SliceEvidence, Thresholds, ViewRecord
from charter.guard.scorers import HEAD
from charter.guard.writing import save
from charter.models.backbone import Backbone
from charter.models.screen import BUCKETS
from charter.models.value_head import Tuned
from charter.records import Exchange, Turn, View

VIEWS: tuple[View, ...] = ("prompt", "exchange")
CONSTITUTION = """\
name: two-clauses
version: 3
purpose: A constitution for tests.
clauses:
  - {id: locks, side: restricted, title: Opening locks, text: Ways into a house., counterpart: locksmiths, examples: [a]}
  - {id: potions, side: restricted, title: Brewing potions, text: Recipes for potions., counterpart: locksmiths, examples: [b]}
  - {id: locksmiths, side: permitted, title: The trade of locksmiths, text: How locks work., examples: [c]}
"""
EXCHANGE = Exchange("a", (Turn("user", "the old lock"), Turn("assistant", "the house")))
GATE = GateRecord(threshold=-4.5, read=0.1, low=0.05, high=0.2, n=40)


@pytest.fixture(scope="module")
def tuned(tiny_folder: Path) -> Tuned:
    return random_change(str(tiny_folder), None, 1)


@pytest.fixture(scope="module")
def saved(tiny_folder: Path, tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    backbone = Backbone(str(tiny_folder))
    rng = np.random.default_rng(1)
    tensors = {
        "probe": {f"{v}.weight": rng.normal(size=(3, 32)).astype(np.float32) for v in VIEWS},
        "screen": {f"{v}.weight": rng.normal(size=(BUCKETS, 3)).astype(np.float16) for v in VIEWS},
    }
    for arrays in tensors.values():
        arrays.update({f"{v}.bias": np.zeros(3, np.float32) for v in VIEWS})
    evidence = {"chat": SliceEvidence(n=100, flagged=0, bound=0.03)}
    at = Thresholds(threshold=0.9, certified=False, sentence="Not certified.", evidence=evidence)
    second = at.model_copy(update={"threshold": 0.2})
    view = ViewRecord(**dict(at), temperature=1.5, offset=0.1, mix=0.5, gate=GATE, head=HeadRecord(mix=0.6, gate=GATE))
    record = GuardRecord(
        name="tiny", constitution="two-clauses", constitution_hash=parse(CONSTITUTION, "x").hash, budget=0.01, near_miss_budget=0.1, seed=0,
        backbone=str(tiny_folder), backbone_fingerprint=backbone.fingerprint, layers=list(backbone.layers), clauses=list(CLAUSES),
        views=dict.fromkeys(VIEWS, view), balanced=PointRecord(budget=0.1, near_miss_budget=0.25, views=dict.fromkeys(VIEWS, second)),
        n_examples={"prompt dev": 100},
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("guards") / "guard"
    save(folder, record, CONSTITUTION, tensors, "# A guard\n", tuned)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "guard")


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Change guard.json as someone would who knows the format, hashes included."""
    record = json.loads((folder / "guard.json").read_text())
    record["files"] = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in record["files"] if (folder / n).exists()}
    change(record)
    (folder / "guard.json").write_text(json.dumps(record))


def test_a_guard_read_back_has_its_head_gates_and_scores(saved: Path, tuned: Tuned) -> None:
    guard = load(saved)
    probe, head = guard.cascade.stages
    assert head.mix == dict.fromkeys(VIEWS, 0.6)
    assert probe.escalate == head.escalate == dict.fromkeys(VIEWS, -4.5)
    (scored,) = guard.cascade.batch([EXCHANGE])
    session = guard.cascade.open(EXCHANGE.prompt)
    reply = [*session.push(EXCHANGE.reply or ""), *session.flush()]
    assert scored.reply is not None
    np.testing.assert_allclose([s.z for s in reply], scored.reply, atol=1e-3)
    without = replace(guard.cascade, head=None)
    (other,) = without.batch([EXCHANGE])
    assert scored.read[1] > 0
    assert np.abs(other.reply - scored.reply).max() > 0.05


def test_the_points_judge_the_same_scores_by_their_own_thresholds(saved: Path) -> None:
    quiet, balanced = load(saved), load(saved, point="balanced")
    assert {p.threshold for p in quiet.policies.values()} == {0.9}
    assert {p.threshold for p in balanced.policies.values()} == {0.2}
    assert (quiet.budgets, balanced.budgets) == ((0.01, 0.1), (0.1, 0.25))
    assert balanced.hash == f"{quiet.hash}-balanced"
    (one, first), (other, second) = (next(iter(g.score([EXCHANGE]))) for g in (quiet, balanced))
    np.testing.assert_array_equal(one.reply, other.reply)
    assert first.score == second.score
    assert first.flagged <= second.flagged


def test_a_guard_without_a_second_point_says_how_to_get_one(folder: Path) -> None:
    rewrite(folder, lambda r: r.pop("balanced"))
    assert load(folder).point == "quiet"
    with pytest.raises(GuardError, match="no balanced operating point; `charter calibrate"):
        load(folder, point="balanced")


def _without_head(record: dict[str, Any]) -> None:
    for view in VIEWS:
        record["views"][view]["head"] = None


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "views know no head": _without_head,
    "one view knows no head": lambda r: r["views"]["prompt"].update(head=None),
    "share above one": lambda r: r["views"]["prompt"]["head"].update(mix=1.5),
    "endless threshold": lambda r: r["views"]["prompt"]["head"]["gate"].update(threshold=float("inf")),
    "gate without its n": lambda r: r["views"]["prompt"]["gate"].pop("n"),
    "half a point": lambda r: r["balanced"]["views"].pop("prompt"),
    "own threshold without a head": lambda r: r["balanced"]["views"]["prompt"].update(
        clauses={"dragons": {"threshold": 0.5, "budget": 0.1, "certified": False, "sentence": "", "evidence": {}}}
    ),
    "balanced threshold above one": lambda r: r["balanced"]["views"]["prompt"].update(threshold=2),
    "file not listed": lambda r: r["files"].pop(HEAD),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_that_does_not_fit_the_head_is_refused(change: str, folder: Path) -> None:
    rewrite(folder, CHANGES[change])
    with pytest.raises(GuardError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_head_that_is_missing_or_was_changed_is_refused(folder: Path) -> None:
    content = (folder / HEAD).read_bytes()
    (folder / HEAD).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(GuardError, match="SHA-256 differs"):
        read_record(folder)
    (folder / HEAD).unlink()
    with pytest.raises(GuardError, match="is missing"):
        read_record(folder)


def _other_clauses(tuned: Tuned) -> Tuned:
    return replace(tuned, record=tuned.record.model_copy(update={"clauses": ("potions", "locks")}))


def _one_view(tuned: Tuned) -> Tuned:
    return replace(tuned, tensors={name: t for name, t in tuned.tensors.items() if not name.startswith("head.prompt")})


def _other_model(tuned: Tuned) -> Tuned:
    return replace(tuned, record=tuned.record.model_copy(update={"fingerprint": "0" * 16}))


def _not_finite(tuned: Tuned) -> Tuned:
    return replace(tuned, tensors={name: torch.full_like(t, torch.nan) for name, t in tuned.tensors.items()})


@pytest.mark.parametrize("change", [_other_clauses, _one_view, _other_model, _not_finite])
def test_a_strangers_head_is_refused_even_where_the_hashes_agree(change: Callable[[Tuned], Tuned], folder: Path, tuned: Tuned) -> None:
    change(tuned).save(folder / HEAD)
    rewrite(folder)
    with pytest.raises(BackboneError if change is _other_model else GuardError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"noise" * 100])
def test_a_head_that_is_no_safetensors_is_refused(content: bytes, folder: Path) -> None:
    (folder / HEAD).write_bytes(content)
    rewrite(folder)
    with pytest.raises(CharterError, match="can't be read as safetensors"):
        load(folder)


def test_serving_a_head_needs_no_peft(saved: Path) -> None:
    """Adapters are multiplied in by hand: what trains them is not even imported."""
    code = f"import sys; from pathlib import Path; from charter.guard.folder import load; load(Path({str(saved)!r})); print('peft' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert said.stdout.split() == ["False"], said.stderr
