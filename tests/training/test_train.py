"""A whole training run on the real embedded model, small: the guard that comes out loads, judges, and is the same every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from charter.cli.training import numbers
from charter.constitution import Constitution
from charter.errors import DataError
from charter.guard.calibration import read
from charter.guard.folder import load
from charter.guard.pack import pack
from charter.guard.recalibrate import recalibrate
from charter.guard.scorers import HEAD
from charter.models.probe import Averaging
from charter.records import Exchange, Turn, read_examples, write_examples
from charter.training.dev_scores import score_dev
from charter.training.train import Options, train
from charter.training.value_head import Options as HeadOptions


@pytest.fixture(scope="module")
def guard_folder(data: Path, constitution: Constitution, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "guard"
    pack(train(data, constitution, Options(depth=0.2, budget=0.05, cache=data / "cache")), constitution, folder)
    return folder


def test_the_guard_tells_the_two_sides_apart(guard_folder: Path) -> None:
    guard = load(guard_folder)
    asked = [Exchange(str(n), (Turn("user", f"Could you talk about feeding {f}?"),)) for n, f in enumerate(("tulips", "roses"))]
    (tulips, bad), (roses, good) = guard.score(asked)
    assert bad.score > good.score
    assert bad.clause == "tulips" or not bad.flagged
    assert tulips.exchange is asked[0]
    assert roses.exchange is asked[1]


def test_the_same_data_give_the_same_guard_to_the_byte(guard_folder: Path, data: Path, constitution: Constitution) -> None:
    again = guard_folder.parent / "again" / "guard"
    pack(train(data, constitution, Options(depth=0.2, budget=0.05, cache=data / "cache")), constitution, again)
    for file in sorted(guard_folder.iterdir()):
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name


def test_the_kept_dev_scores_give_the_same_guard_and_are_what_its_scorers_give(guard_folder: Path, data: Path) -> None:
    record = recalibrate(guard_folder, guard_folder.parent / "moved" / "guard").record
    for file in sorted(guard_folder.iterdir()):
        assert file.read_bytes() == (guard_folder.parent / "moved" / "guard" / file.name).read_bytes(), file.name
    guard = load(guard_folder)
    for view, fresh in score_dev(guard.cascade, data, guard.constitution).items():
        kept = read(guard_folder, record)[view]
        np.testing.assert_allclose(fresh.logits, kept.logits, atol=1e-4)
        np.testing.assert_array_equal(fresh.labels, kept.labels)
        np.testing.assert_array_equal(fresh.slice_of, kept.slice_of)
        assert fresh.names == kept.names


def test_a_guard_with_a_value_head_is_what_was_calibrated_and_is_the_same_every_time(
    roomy: str, data: Path, constitution: Constitution, tmp_path: Path
) -> None:
    head = HeadOptions(blocks=1, rank=2, epochs=1, next_token=0.0, precision="fp32", lr=1e-2)
    options = Options(depth=1.0, budget=0.05, backbone=roomy, cache=tmp_path / "cache", screen_first=True, value_head=head)
    said: list[str] = []
    trained = train(data, constitution, options, lambda name, *_: said.append(name))
    assert said.count("value head") > 1
    pack(trained, constitution, tmp_path / "guard")
    assert (tmp_path / "guard" / HEAD).is_file()
    guard = load(tmp_path / "guard")
    assert [stage.escalate for stage in guard.cascade.stages] == [stage.escalate for stage in trained.cascade.stages]
    for view, fresh in score_dev(guard.cascade, data, guard.constitution).items():
        np.testing.assert_allclose(fresh.logits, trained.points[view].dev.logits, atol=2e-2)  # bfloat16 where the processor has it
    again = train(data, constitution, options)  # from the cache: the run is over
    pack(again, constitution, tmp_path / "again" / "guard")
    recalibrate(tmp_path / "guard", tmp_path / "moved" / "guard")
    for file in sorted((tmp_path / "guard").iterdir()):
        for other in ("again", "moved"):
            assert file.read_bytes() == (tmp_path / other / "guard" / file.name).read_bytes(), (other, file.name)


def test_rounds_take_a_guard_with_a_value_head_whole_or_not_at_all(
    roomy: str, data: Path, constitution: Constitution, tmp_path: Path
) -> None:
    head = HeadOptions(blocks=1, rank=2, epochs=1, next_token=0.0, precision="fp32", lr=1e-2)
    options = Options(depth=1.0, backbone=roomy, cache=tmp_path / "cache", value_head=head)
    first = train(data, constitution, options)
    said: list[str] = []
    same = train(data, constitution, options, lambda name, *_: said.append(name), first)
    assert same.points == first.points
    assert same.head is first.head
    assert "value head" not in said
    base = next(e for e in read_examples(data) if e.reply_restricted is None and e.split == "train")
    added = tmp_path / "redteam-1.parquet"
    write_examples(added, [replace(base, id="r0", turns=(Turn("user", base.turns[0].content.upper()),), teacher="redteam:1")])
    train([data / "examples.parquet", added], constitution, options, lambda name, *_: said.append(name), first)
    assert "value head" in said
    assert any("exchange" in name for name in said)


def test_the_card_says_that_a_small_dev_split_certifies_nothing(guard_folder: Path) -> None:
    card = (guard_folder / "card.md").read_text()
    assert "can't be certified" in card
    assert "gardens" in card


def test_what_a_round_leaves_alone_is_taken_from_the_guard_before_and_is_the_same(
    data: Path, constitution: Constitution, tmp_path: Path
) -> None:
    """A round adds prompts: the exchange view stands, layers and all."""
    base = list(read_examples(data))
    plain = [e for e in base if e.reply_restricted is None and e.split == "train"][:6]
    added = [
        replace(e, id=f"r{n}", turns=(Turn("user", e.turns[0].content.upper()),), family="casing", teacher="redteam:1")
        for n, e in enumerate(plain)
    ]
    files = [data / "examples.parquet", tmp_path / "redteam-1.parquet"]
    write_examples(files[1], added)
    options = Options(depth=0.1, cache=tmp_path / "cache")
    first = train(files[:1], constitution, options)
    said: list[str] = []
    short = train(files, constitution, options, lambda name, *_: said.append(name), first)
    assert not any("exchange" in name for name in said)
    whole = train(files, constitution, options)
    assert short.points == whole.points
    assert short.points["prompt"] != first.points["prompt"]
    for view in ("prompt", "exchange"):
        assert (short.cascade.probe.weights[view] == whole.cascade.probe.weights[view]).all()
        assert (short.cascade.screen.weights[view] == whole.cascade.screen.weights[view]).all()


def test_window_average_and_layers_are_kept_and_serve(roomy: str, data: Path, constitution: Constitution, tmp_path: Path) -> None:
    own = Averaging(window=5, ema=0)
    options = Options(budget=0.05, backbone=roomy, cache=tmp_path / "cache", units=2, layers=(2,), averaging=own)
    trained = train(data, constitution, options)
    pack(trained, constitution, tmp_path / "guard")
    guard = load(tmp_path / "guard")
    assert (guard.record.window, guard.record.ema, guard.record.layers) == (5, 0, [2])
    assert guard.cascade.probe.averaging == own
    for view, fresh in score_dev(guard.cascade, data, guard.constitution).items():
        np.testing.assert_allclose(fresh.logits, trained.points[view].dev.logits, atol=2e-2)
    usual = train(data, constitution, replace(options, averaging=Averaging()))
    for view, weights in usual.cascade.probe.weights.items():
        assert np.abs(weights - trained.cascade.probe.weights[view]).max() > 0, view


@pytest.mark.parametrize(("text", "expected"), [("8-10", (8, 9, 10)), ("4, 2", (2, 4)), ("1,3-4", (1, 3, 4))])
def test_layers_are_read_as_numbers_and_ranges(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize("text", ["", "x", "3-", "-3", "0-2", "2,2", "1-3,2", "4-2", "1.5", "99999"])
def test_what_names_no_layers_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="such as 8-20 or 4,8,12"):
        numbers(text)
