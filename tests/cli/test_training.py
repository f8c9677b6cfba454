"""`charter build` takes every option of `charter train`, refuses what can't be before it synthesizes, and hands all of it on."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from charter.cli import app, build, train, training
from charter.errors import DataError

PLAIN: dict[str, Any] = {
    "budget": 0.01, "near_miss_budget": 0.1, "backbone": "embedded", "balanced_budget": None, "screen_first": False, "seed": 0,
    "units": 128, "loss": "softmax", "views": "prompt,exchange", "window": 16, "ema": None, "layers": None, "ensemble": 0, "held_out": 0,
    "head": None, "sentence_encoder": None, "encoder_epochs": 0,
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {"budget": 0.02}, {"near_miss_budget": 0.2}, {"backbone": "other"}, {"balanced_budget": 0.3}, {"screen_first": True}, {"seed": 1},
    {"units": 0}, {"loss": "bce"}, {"views": "prompt,reply"}, {"window": 8}, {"ema": 0}, {"layers": "3-5"}, {"ensemble": 3},
    {"ensemble": 3, "held_out": 1}, {"sentence_encoder": "some/folder"}, {"sentence_encoder": "some/folder", "encoder_epochs": 2},
    {"head": training.head_options(True, None, 6, 16, 3, 5e-4)},
    {"head": training.head_options(True, 12, 6, 16, 3, 5e-4)}, {"head": training.head_options(True, None, 6, 16, 3, 1e-4)},
]  # fmt: skip


def parameters(verb: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(verb.command).parameters)


def test_build_has_every_option_of_train_with_the_same_default_and_meaning() -> None:
    of_train, of_build = parameters(train), parameters(build)
    shared = of_train.keys() - {"data", "out"}
    assert len(shared) >= 20
    assert shared <= of_build.keys()
    assert {name: of_train[name].default for name in shared} == {name: of_build[name].default for name in shared}
    unlike = {name for name in shared if of_train[name].annotation != of_build[name].annotation}
    assert unlike == {"held_out_members"}, "train has the shorter --held-out too, which means families in build"


def test_the_defaults_are_those_of_the_library() -> None:
    from charter.training.train import Options
    from charter.training.value_head import Options as HeadOptions

    assert training.options(**PLAIN) == Options()
    defaults = {name: own.default for name, own in parameters(train).items()}
    head = training.head_options(True, *(defaults[f"head_{name}"] for name in ("depth", "blocks", "rank", "epochs", "lr")))
    assert head == HeadOptions()


def test_whatever_is_changed_shows_in_what_a_resumed_run_compares() -> None:
    told = [str(training.options(**PLAIN | change)) for change in ({}, *CHANGES)]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--views", "prompt"), "a guard needs the view prompt and one or both of"),
        (("--layers", "0-3"), "--layers: '0-3' must name blocks from 1 on"),
        (("--ensemble", "1"), "an ensemble of 1 with 0 held out can't serve"),
        (("--ensemble", "3", "--held-out-members", "3"), "an ensemble of 3 with 3 held out can't serve"),
        (("--budget", "0.2", "--balanced-budget", "0.1"), "less than the guard's own"),
    ],
)
@pytest.mark.parametrize("verb", [("train", "nowhere"), ("build", "general")])
def test_what_cannot_be_is_refused_before_any_work(verb: tuple[str, ...], arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*verb, "--out", str(tmp_path / "guard"), *arguments])
    assert isinstance(result.exception, DataError)
    assert said in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_build_hands_its_options_to_training(roomy: str, tmp_path: Path) -> None:
    synthesis = ["--per-clause", "30", "--per-pool", "4", "--augment", "0"]
    probe = ["--views", "prompt,reply", "--window", "4", "--ema", "0", "--layers", "1-2", "--units", "0", "--loss", "bce"]
    members = ["--ensemble", "3", "--held-out-members", "1", "--held-out", "rot13"]
    arguments = ["build", "bank-assistant", "--out", str(tmp_path / "guard"), "--backbone", roomy, *synthesis, *probe, *members]
    result = CliRunner().invoke(app, arguments, env={"CHARTER_CACHE": str(tmp_path / "cache")}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "guard" / "guard.json").read_text())
    assert (record["window"], record["ema"], record["layers"]) == (4, 0, [1, 2])
    assert sorted(record["views"]) == ["prompt", "reply"]
    assert (record["ensemble"]["serving"], record["ensemble"]["held_out"]) == (2, 1)
