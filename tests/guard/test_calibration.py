"""The dev scores that a guard keeps come back as they were, and damaged ones are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kept import dev_scores, save_kept
from safetensors.numpy import load_file, save_file

from charter.errors import GuardError
from charter.guard.calibration import FILE, read
from charter.guard.folder import read_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_kept(tmp_path / "guard")


def _rehash(folder: Path) -> None:
    record = json.loads((folder / "guard.json").read_text())
    record["files"][FILE] = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    (folder / "guard.json").write_text(json.dumps(record))


def test_dev_scores_come_back_as_they_were(folder: Path) -> None:
    found = read(folder, read_record(folder)[0])
    for view, seed in (("prompt", 1), ("exchange", 2)):
        expected = dev_scores(seed)
        for name in ("logits", "labels", "slice_of"):
            np.testing.assert_array_equal(getattr(found[view], name), getattr(expected, name))
            assert getattr(found[view], name).dtype == getattr(expected, name).dtype
        assert found[view].names == expected.names


def test_an_older_guard_is_read_and_told_how_to_be_calibrated(tmp_path: Path) -> None:
    folder = save_kept(tmp_path / "guard", keep=False)
    record, _ = read_record(folder)
    assert not (folder / FILE).exists()
    with pytest.raises(GuardError, match=r"holds no calibration\.safetensors, .* --data"):
        read(folder, record)


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_file_that_is_not_the_one_that_was_kept_is_refused(damage: str, folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).unlink()
    if damage != "missing":
        (folder / FILE).write_bytes(content[:-5] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(GuardError, match=r"calibration\.safetensors: is "):
        read_record(folder)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no logits": lambda t: t.pop("prompt.logits"),
    "no view": lambda t: [t.pop(name) for name in list(t) if name.startswith("exchange")],
    "a head too few": lambda t: t.update({"prompt.logits": np.ascontiguousarray(t["prompt.logits"][:, :2])}),
    "a row too few": lambda t: t.update({"prompt.slices": t["prompt.slices"][1:]}),
    "flat": lambda t: t.update({"prompt.slices": t["prompt.slices"].reshape(-1, 1)}),
    "no number": lambda t: t["exchange.logits"].__setitem__((3, 1), np.nan),
    "endless": lambda t: t["exchange.logits"].__setitem__((3, 1), -np.inf),
    "doubles": lambda t: t.update({"prompt.logits": t["prompt.logits"].astype(float)}),
    "a label of 2": lambda t: t["prompt.labels"].__setitem__((0, 0), 2),
    "harmless by a clause": lambda t: t["prompt.labels"].__setitem__((-1, 1), 1),
    "a slice too many": lambda t: t["prompt.slices"].__setitem__(5, 4),
    "a slice below the first": lambda t: t["prompt.slices"].__setitem__(5, -1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_scores_that_do_not_fit_are_refused_even_where_the_hashes_agree(change: str, folder: Path) -> None:
    arrays = {name: array.copy() for name, array in load_file(folder / FILE).items()}
    CHANGES[change](arrays)
    save_file(arrays, folder / FILE)
    _rehash(folder)
    with pytest.raises(GuardError, match=r"calibration\.safetensors") as caught:
        read(folder, read_record(folder)[0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_what_is_no_safetensors_is_refused_even_where_the_hashes_agree(content: bytes, folder: Path) -> None:
    (folder / FILE).write_bytes(content)
    _rehash(folder)
    with pytest.raises(GuardError, match="can't be read as safetensors"):
        read(folder, read_record(folder)[0])


def test_a_threshold_for_a_clause_without_a_head_is_refused(folder: Path) -> None:
    record = json.loads((folder / "guard.json").read_text())
    own = {"threshold": 0.5, "budget": 0.01, "certified": False, "sentence": "", "evidence": {}}
    record["views"]["prompt"]["clauses"] = {"dragons": own}
    (folder / "guard.json").write_text(json.dumps(record))
    with pytest.raises(GuardError, match="'dragons', which has no head"):
        read_record(folder)
