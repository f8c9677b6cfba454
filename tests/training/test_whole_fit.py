"""A guard whose prompts a sentence encoder reads too: it serves what was calibrated, is the same every time, and is refused when damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from charter.cli import app
from charter.constitution import Constitution
from charter.errors import BackboneError, CharterError, GuardError
from charter.guard.folder import load
from charter.guard.pack import pack
from charter.guard.recalibrate import recalibrate
from charter.guard.scorers import WHOLE
from charter.models.trained import Trained
from charter.records import Exchange, Turn, read_examples
from charter.statistics import auroc
from charter.training.dev_scores import score_dev
from charter.training.train import Options, train


@pytest.fixture(scope="module")
def fitting(data: Path, constitution: Constitution, roomy: str, tiny_bert: str) -> Callable[[], Trained]:
    options = Options(depth=1.0, budget=0.05, backbone=roomy, cache=data / "cache", sentence_encoder=tiny_bert)
    return lambda: train(data, constitution, options)


@pytest.fixture(scope="module")
def saved(fitting: Callable[[], Trained], constitution: Constitution, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "guard"
    pack(fitting(), constitution, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "guard")


def test_it_serves_what_was_calibrated_and_is_the_same_every_time(
    saved: Path, fitting: Callable[[], Trained], constitution: Constitution, data: Path
) -> None:
    assert "sentence encoder" in (saved / "card.md").read_text()
    again = fitting()
    pack(again, constitution, saved.parent / "again" / "guard")
    recalibrate(saved, saved.parent / "moved" / "guard")
    for file in sorted(saved.iterdir()):
        for other in ("again", "moved"):
            assert file.read_bytes() == (saved.parent / other / "guard" / file.name).read_bytes(), (other, file.name)
    guard = load(saved)
    assert guard.cascade.whole is not None
    assert guard.cascade.whole.mix > 0
    for view, fresh in score_dev(guard.cascade, data, guard.constitution).items():
        np.testing.assert_allclose(fresh.logits, again.points[view].dev.logits, atol=2e-2)  # bfloat16 where the processor has it


def test_its_layer_learns_the_two_sides(saved: Path, data: Path) -> None:
    whole = load(saved).cascade.whole
    assert whole is not None
    own = [e for e in read_examples(data / "examples.parquet") if e.split == "train" and e.reply_restricted is None]
    vectors, owner, _ = whole.encoder.vectors([e.turns[-1].content for e in own])
    assert auroc(np.array([e.prompt_restricted for e in own]), whole.of(vectors, owner)[:, 0]) > 0.8


def test_a_session_and_the_batch_reach_the_same_verdict(saved: Path) -> None:
    guard = load(saved)
    turns = (Turn("user", "I have a garden."), Turn("assistant", "Good."), Turn("user", "Could you talk about feeding tulips?"))
    ((_, verdict),) = guard.score([Exchange("x", turns)])
    found = guard.open(turns).prompt_verdict
    assert (found.flagged, found.position) == (verdict.flagged, verdict.position)
    assert found.score == pytest.approx(verdict.score, abs=1e-3)


def _rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Damage to the layer's tensors that the hashes agree with."""

    def damage(folder: Path) -> None:
        arrays = load_file(folder / WHOLE)
        change(arrays)
        save_file(arrays, folder / WHOLE)
        _rehash(folder)

    return damage


def _recorded(key: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        record = json.loads((folder / "guard.json").read_text())
        record["whole"][key] = value
        (folder / "guard.json").write_text(json.dumps(record))

    return damage


def _forgotten(folder: Path) -> None:
    record = json.loads((folder / "guard.json").read_text())
    del record["whole"]
    (folder / "guard.json").write_text(json.dumps(record))


def _rehash(folder: Path) -> None:
    record = json.loads((folder / "guard.json").read_text())
    record["files"][WHOLE] = hashlib.sha256((folder / WHOLE).read_bytes()).hexdigest()
    (folder / "guard.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "kind", "word"),
    [
        (lambda folder: (folder / WHOLE).unlink(), GuardError, "is missing"),
        (_forgotten, GuardError, "do not go together"),
        (_rewritten(lambda a: a["prompt.bias"].fill(np.nan)), GuardError, "finite numbers"),
        (_rewritten(lambda a: a["prompt.hidden.inner"].fill(np.inf)), GuardError, "not finite"),
        (_rewritten(lambda a: a.update({"prompt.bias": np.zeros(1, np.float32)})), GuardError, "finite numbers"),
        (_rewritten(lambda a: a.pop("prompt.hidden.outer")), GuardError, "does not fit"),
        (_rewritten(lambda a: [a.pop(name) for name in list(a)]), GuardError, "needs a hidden layer"),
        (_recorded("fingerprint", "0" * 16), BackboneError, "not the sentence encoder"),
        (_recorded("encoder", "nowhere/at-all"), BackboneError, "sentence encoder"),
        (_recorded("mix", 1.5), GuardError, "whole"),
    ],
)
def test_a_damaged_one_is_refused(damage: Callable[[Path], None], kind: type[CharterError], word: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(kind, match=word):
        load(folder)


def test_the_command_trains_one_and_says_its_share(data: Path, roomy: str, tiny_bert: str, tmp_path: Path) -> None:
    call = ["train", str(data), "--out", str(tmp_path / "guard"), "--backbone", roomy, "--budget", "0.05"]
    told = CliRunner().invoke(app, [*call, "--sentence-encoder", tiny_bert], env={"CHARTER_CACHE": str(data / "cache")})
    assert told.exit_code == 0, told.output
    assert "sentence encoder's share" in told.output
    assert load(tmp_path / "guard").record.whole
