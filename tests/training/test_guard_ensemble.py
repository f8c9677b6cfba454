"""An ensemble from training to the verdict: its score, its disagreement, and the members that are kept apart."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit
from typer.testing import CliRunner

from charter.cli import app
from charter.constitution import Constitution
from charter.errors import DataError, GuardError
from charter.guard.folder import Guard, load
from charter.guard.pack import pack
from charter.guard.recalibrate import recalibrate
from charter.guard.scorers import MEMBERS
from charter.models.ensemble import disagreement, log_mean_probability, mean_logit
from charter.models.members import disagreements, member_logits
from charter.records import Exchange, Turn
from charter.training.train import Options, check_members, train

ASKED = [Exchange(str(n), (Turn("user", f"Could you talk about feeding {flower}?"),)) for n, flower in enumerate(("tulips", "roses"))]
TALK = Exchange("talk", (Turn("user", "Hm?"), Turn("assistant", "Gladly: the soil of tulips is a matter of patience.")))


@pytest.fixture(scope="module", params=[0, 3], ids=["linear", "with a hidden layer"])
def folder(request: pytest.FixtureRequest, roomy: str, data: Path, constitution: Constitution) -> Path:
    out = data / f"guard-{request.param}"
    options = Options(depth=1.0, budget=0.05, backbone=roomy, cache=data / "cache", units=request.param, ensemble=5, held_out=2)
    pack(train(data, constitution, options), constitution, out)
    return out


@pytest.fixture(scope="module")
def guard(folder: Path) -> Guard:
    return load(folder)


@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.floats(-30, 30)))
def test_the_logit_is_that_of_the_mean_probability(z: np.ndarray) -> None:
    np.testing.assert_allclose(mean_logit(z), logit(expit(z).mean(0)), atol=1e-3, rtol=1e-4)
    assert (np.diff(mean_logit(z)[np.argsort(log_mean_probability(z))]) > -1e-3).all()


@pytest.mark.parametrize("size", [900.0, -900.0])
def test_logits_of_any_size_stay_finite(size: float) -> None:
    assert np.isfinite(mean_logit(np.array([[size], [size / 2]]))).all()


def test_the_guards_score_is_its_members_and_the_held_out_ones_have_no_part_in_it(guard: Guard) -> None:
    own = guard.cascade.probe.ensemble["prompt"]
    assert (len(own.serving.seeds), len(own.held_out.seeds)) == (3, 2)
    (scored,) = replace(guard.cascade, mix=dict.fromkeys(guard.cascade.views, 1.0)).batch(ASKED[:1])
    z = member_logits(guard.cascade, ASKED[0])["prompt"]
    assert z.shape == (3, *scored.prompt.shape)
    np.testing.assert_allclose(scored.prompt[-1], logit(expit(z[:, -1].astype(float)).mean(0)), atol=1e-2)
    apart = guard.held_out()
    (other,) = replace(apart.cascade, mix=dict.fromkeys(guard.cascade.views, 1.0)).batch(ASKED[:1])
    y = member_logits(apart.cascade, ASKED[0])["prompt"]
    assert len(y) == 2
    np.testing.assert_allclose(other.prompt[-1], logit(expit(y[:, -1].astype(float)).mean(0)), atol=1e-2)
    assert np.abs(other.prompt - scored.prompt).max() > 1e-3
    assert apart.hash != guard.hash
    assert apart.policies == guard.policies


@pytest.mark.parametrize("exchange", [*ASKED, TALK], ids=["tulips", "roses", "talk"])
def test_disagreement_stands_beside_each_scored_token(guard: Guard, exchange: Exchange) -> None:
    (scored,) = guard.cascade.batch([exchange])
    tokens, at_the_loudest = disagreements(guard.cascade, exchange)
    (z,) = member_logits(guard.cascade, exchange).values()
    assert len(tokens) == len(scored.judged_texts)
    np.testing.assert_allclose(tokens, disagreement(z[..., 0]))
    assert at_the_loudest in tokens
    assert 0 < tokens.max() <= 0.5


@settings(max_examples=10)
@given(data=st.data())
def test_streamed_scores_equal_batch_scores_and_a_copy_goes_on_alone(
    data: st.DataObject, chunked: Callable[[st.DataObject, str], list[str]], guard: Guard
) -> None:
    reply = TALK.reply or ""
    (batch,) = guard.cascade.batch([TALK])
    session = guard.cascade.open(TALK.prompt)
    pieces = chunked(data, reply)
    scores = [score for piece in pieces[:1] for score in session.push(piece)]
    twin = copy.deepcopy(session)
    twin.push("quite another text ")
    scores += [score for piece in pieces[1:] for score in session.push(piece)] + session.flush()
    np.testing.assert_allclose([score.z for score in scores], batch.reply, atol=2e-3)


def test_it_tells_the_sides_apart_and_says_so_on_its_card(guard: Guard, folder: Path) -> None:
    for judge in (guard, guard.held_out()):
        bad, good = (verdict for _, verdict in judge.score(ASKED))
        assert bad.score > good.score
    card = (folder / "card.md").read_text()
    assert "ensemble of 3 bootstrap members" in card
    assert "2 more are held out" in card
    assert guard.record.ensemble is not None
    for sides in guard.record.ensemble.disagreement.values():
        assert set(sides) == {"harmless", "restricted"}
        assert all(0 <= own.low <= own.value <= own.high <= 0.5 for own in sides.values())


def test_moved_thresholds_leave_the_members_as_they_are(folder: Path, tmp_path: Path) -> None:
    recalibrate(folder, tmp_path / folder.name)
    for file in sorted(folder.iterdir()):
        assert file.read_bytes() == (tmp_path / folder.name / file.name).read_bytes(), file.name


def test_score_reports_disagreement_and_judges_by_the_held_out(folder: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"id": "a", "messages": [{"role": "user", "content": "Tell me about tulips."}]}) + "\n")
    lines: list[Any] = []
    for more in ([], ["--tokens"], ["--held-out"]):
        result = CliRunner().invoke(app, ["score", str(folder), "--file", str(asked), *more])
        assert result.exit_code == 0, result.output
        lines.append(json.loads(result.stdout))
    plain, told, apart = lines
    assert plain["disagreement"] == told["disagreement"]
    assert len(told["disagreements"]) == len(told["tokens"])
    assert "disagreements" not in plain
    assert apart["verdict"]["score"] != plain["verdict"]["score"]


def test_a_guard_without_members_apart_can_not_judge_by_them(saved_guard: Path) -> None:
    with pytest.raises(DataError, match="--held-out 2"):
        load(saved_guard).held_out()


def test_a_damaged_or_missing_ensemble_is_refused(folder: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    record = json.loads((damaged / "guard.json").read_text())
    (damaged / "guard.json").write_text(json.dumps({**record, "ensemble": None}))
    with pytest.raises(GuardError, match="do not go together"):
        load(damaged)
    (damaged / "guard.json").write_text(json.dumps({**record, "ensemble": {**record["ensemble"], "serving": 4}}))
    with pytest.raises(GuardError, match="does not hold 6 members"):
        load(damaged)
    (damaged / "guard.json").write_text(json.dumps(record))
    (damaged / MEMBERS).unlink()
    with pytest.raises(GuardError, match="is missing"):
        load(damaged)


@pytest.mark.parametrize(("members", "held_out"), [(1, 0), (2, 2), (0, 1), (3, 5)])
def test_an_ensemble_that_can_not_serve_is_refused(members: int, held_out: int) -> None:
    with pytest.raises(DataError, match="can't serve"):
        check_members(members, held_out)
