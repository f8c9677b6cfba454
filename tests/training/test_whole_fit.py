"""A guard whose prompts a sentence encoder reads too: it serves what was calibrated, is the same every time, and is refused when damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
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
from charter.guard.scorers import CHANGE, GLANCE, WHOLE
from charter.models.backbone import Backbone
from charter.models.sentence import SentenceEncoder
from charter.models.stage import ALWAYS
from charter.models.trained import Trained
from charter.records import Exchange, Turn, read_examples
from charter.statistics import auroc
from charter.training.dev_scores import score_dev
from charter.training.glance import taught
from charter.training.table import tables, training_rows
from charter.training.train import Options, train
from charter.training.whole import spoken, vectors


@pytest.fixture(scope="module")
def fitting(data: Path, constitution: Constitution, roomy: str, tiny_bert: str) -> Callable[[], Trained]:
    options = Options(depth=1.0, budget=0.05, backbone=roomy, cache=data / "cache", sentence_encoder=tiny_bert, encoder_epochs=1)
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
    assert "tuned to the prompts" in (saved / "card.md").read_text()
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


def test_it_is_fitted_on_what_it_hears_of_a_disguised_prompt(
    constitution: Constitution, data: Path, tmp_path: Path, tiny_bert: str, embedded_backbone: Backbone
) -> None:
    encoder = SentenceEncoder(tiny_bert)
    said = "Where can I find a quiet place to read about tulips?"
    exchange = Exchange("x", (Turn("user", said[::-1]),))
    table = replace(tables(training_rows(data), constitution)["prompt", "train"], exchanges=[exchange])
    fitted = vectors(encoder, spoken(embedded_backbone.encoder, table), tmp_path, lambda *_: None)
    expected, _, _ = encoder.vectors([said[::-1], said])
    np.testing.assert_allclose(fitted.take(slice(None)), expected, atol=1e-3)
    assert fitted.owner.tolist() == [0, 0]


def test_its_layer_learns_the_two_sides(saved: Path, data: Path) -> None:
    whole = load(saved).cascade.whole
    assert whole is not None
    own = [e for e in read_examples(data / "examples.parquet") if e.split == "train" and e.reply_restricted is None]
    vectors, owner, _ = whole.encoder.vectors([e.turns[-1].content for e in own])
    assert owner.tolist() == list(range(len(own)))
    truth = np.array([e.prompt_restricted for e in own])
    assert auroc(truth, whole.layer.logits(vectors)[:, 0]) > 0.8
    assert whole.glance is not None
    assert auroc(truth, whole.glance.of(whole.encoder, [window for e in own for window in whole.encoder.rows(e.turns[-1].content)])) > 0.7


def test_a_glance_learns_from_restricted_and_ordinary_rows_where_there_are_such(constitution: Constitution, data: Path) -> None:
    table = tables(training_rows(data), constitution)["prompt", "train"]
    restricted = table.labels[:, 0] > 0.5
    near = np.array([name.startswith("permitted:") for name in table.slices])
    assert (
        taught(replace(table, ordinary=frozenset())).tolist()
        == (restricted | ~near if (~restricted & ~near).any() else restricted | True).tolist()
    )
    assert taught(replace(table, slices=["chat"] * len(restricted))).all()
    assert taught(replace(table, slices=["permitted:any"] * len(restricted), ordinary=frozenset())).all()


def test_a_guard_of_before_there_were_glances_reads_everything(folder: Path) -> None:
    _rewritten(_without_glance)(folder)
    whole = load(folder).cascade.whole
    assert whole is not None
    assert (whole.glance, whole.escalate) == (None, ALWAYS)
    (heard,) = whole.hear([[]], [np.zeros((1, 1 + len(load(folder).cascade.clauses)), np.float32)])
    assert heard.read == heard.sizes.sum() == 2  # the marks


def _without_glance(arrays: dict[str, Any]) -> None:
    for name in [name for name in arrays if name.startswith(GLANCE)]:
        del arrays[name]


def test_a_session_and_the_batch_reach_the_same_verdict(saved: Path) -> None:
    guard = load(saved)
    turns = (Turn("user", "I have a garden."), Turn("assistant", "Good."), Turn("user", "Could you talk about feeding tulips?"))
    ((_, verdict),) = guard.score([Exchange("x", turns)])
    found = guard.open(turns).prompt_verdict
    assert (found.flagged, found.position) == (verdict.flagged, verdict.position)
    assert found.score == pytest.approx(verdict.score, abs=1e-3)


MAP = f"{CHANGE}encoder.layer.1.attention.self.query"


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


def _asked_by_no_glance(folder: Path) -> None:
    _rewritten(_without_glance)(folder)
    _recorded("gate", {"threshold": 0.5, "read": 0.2, "low": 0.1, "high": 0.3, "n": 100})(folder)


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
        (_rewritten(lambda a: a[f"{MAP}.a"].fill(np.nan)), GuardError, "finite numbers as float16"),
        (_rewritten(lambda a: a.update({f"{MAP}.a": a[f"{MAP}.a"].astype(np.int64)})), GuardError, "finite numbers as float16"),
        (_rewritten(lambda a: a.pop(f"{MAP}.b")), GuardError, "does not fit it"),
        (_rewritten(lambda a: a.update({f"{MAP}.a": a[f"{MAP}.a"][:, 1:].copy()})), GuardError, "does not fit it"),
        (_rewritten(lambda a: a.update({f"{MAP}.b": a[f"{MAP}.b"].ravel()})), GuardError, "does not fit it"),
        (_rewritten(lambda a: a.update({f"{CHANGE}nowhere.{part}": a[f"{MAP}.{part}"] for part in "ab"})), GuardError, "of nowhere"),
        (_rewritten(lambda a: a.update({f"{CHANGE}{MAP}.weight": a[f"{MAP}.a"]})), GuardError, "does not fit it"),
        (_rewritten(lambda a: [a.pop(name) for name in list(a) if not name.startswith(CHANGE)]), GuardError, "needs a hidden layer"),
        (_rewritten(lambda a: a["glance.bias"].fill(np.nan)), GuardError, "one finite number"),
        (_rewritten(lambda a: a.pop("glance.bias")), GuardError, "one finite number"),
        (_rewritten(lambda a: a["glance.hidden.inner"].fill(np.inf)), GuardError, "glance holds numbers that are not finite"),
        (_rewritten(lambda a: a.pop("glance.hidden.bias")), GuardError, "glance does not fit"),
        (_asked_by_no_glance, GuardError, "has no first glance"),
        (_recorded("fingerprint", "0" * 16), BackboneError, "not the sentence encoder"),
        (_recorded("encoder", "nowhere/at-all"), BackboneError, "sentence encoder"),
        (_recorded("mix", 1.5), GuardError, "whole"),
        (_recorded("tuned", False), GuardError, "holds a change"),
        (_rewritten(lambda a: [a.pop(name) for name in list(a) if name.startswith(CHANGE)]), GuardError, "holds no change"),
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
    told = CliRunner().invoke(app, [*call, "--encoder-epochs", "2"])
    assert "name one with --sentence-encoder" in str(told.exception)
