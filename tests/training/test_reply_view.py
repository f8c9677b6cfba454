"""The output classifier: a reply judged without the conversation that led to it, from training to the verdict."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gardens import rows
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.constitution import Constitution
from charter.errors import BackboneError, DataError, GuardError
from charter.evaluation.datasets import Item, Set
from charter.evaluation.metrics import of_set
from charter.evaluation.run import evaluate
from charter.evaluation.streaming import Drawn, streaming
from charter.guard.folder import Guard, load
from charter.guard.pack import pack
from charter.guard.recalibrate import recalibrate
from charter.records import Exchange, Turn, View
from charter.training.dev_scores import score_dev
from charter.training.table import tables
from charter.training.train import Options, check_views, train

Chunker = Callable[[st.DataObject, str], list[str]]
BOTH: tuple[View, ...] = ("prompt", "exchange", "reply")
ALONE: tuple[View, ...] = ("prompt", "reply")
REPLY = "Gladly: watering of tulips is a matter of patience; dig 😀 deep, naïvely, by 日本語 rules."


@pytest.fixture(scope="module", params=[BOTH, ALONE], ids="+".join)
def folder(request: pytest.FixtureRequest, roomy: str, data: Path, constitution: Constitution) -> Path:
    """A guard with these views, trained on the tiny model with room."""
    out = data / "-".join(request.param)
    options = Options(depth=1.0, budget=0.05, backbone=roomy, cache=data / "cache", views=request.param, screen_first=True, units=4)
    pack(train(data, constitution, options), constitution, out)
    return out


@pytest.fixture(scope="module")
def guard(folder: Path) -> Guard:
    return load(folder)


def exchange(reply: str, *before: str) -> Exchange:
    return Exchange("x", (*(Turn("user", text) for text in before), Turn("assistant", reply)))


def test_what_it_is_trained_on_has_no_prompt(constitution: Constitution) -> None:
    found = tables(rows(constitution), constitution, BOTH)
    for split in ("train", "dev"):
        alone, light = found["reply", split], found["exchange", split]
        assert [e.turns for e in alone.exchanges] == [e.turns[-1:] for e in light.exchanges]
        assert (alone.labels == light.labels).all()
        assert alone.labels[:, 0].any()


def test_it_does_not_see_the_prompt(guard: Guard) -> None:
    first, second, third = (scored for scored, _ in guard.score([exchange(REPLY, "Why?"), exchange(REPLY, "a", "b"), exchange(REPLY)]))
    assert first.alone is not None
    for other in (second, third):
        assert other.alone is not None
        np.testing.assert_allclose(other.alone, first.alone, atol=1e-4)
    if "exchange" in guard.cascade.views:
        assert first.reply is not None
        assert second.reply is not None
        assert np.abs(first.reply - second.reply).max() > 1e-3


def test_it_learns_from_the_replies(guard: Guard) -> None:
    replies = [f"Gladly: pots of {flower} is a matter of patience." for flower in ("tulips", "roses")]
    bad, good = (guard.judged(scored).verdicts["reply"] for scored, _ in guard.score(exchange(reply, "Hm?") for reply in replies))
    assert bad.score > good.score


@settings(max_examples=15)
@given(data=st.data())
def test_streamed_scores_equal_batch_scores_by_every_view(data: st.DataObject, texts: Any, chunked: Chunker, guard: Guard) -> None:
    reply = data.draw(texts)[:200]
    prompt = (Turn("user", "What about tulips?"),)
    theta = data.draw(st.sampled_from([-np.inf, -3.0, np.inf]), label="escalation threshold")
    cascade = replace(guard.cascade, escalate=dict.fromkeys(guard.cascade.views, theta))
    (batch,) = cascade.batch([Exchange("x", (*prompt, Turn("assistant", reply)))])
    session = cascade.open(prompt)
    pieces = chunked(data, reply)
    scores = [score for piece in pieces[:2] for score in session.push(piece)]
    twin = copy.deepcopy(session)
    twin.push("something else ")
    twin.flush()
    scores += [score for piece in pieces[2:] for score in session.push(piece)] + session.flush()
    assert [score.text for score in scores] == list(batch.judged_texts)
    assert list(scores[0].by) == list(batch.judged) == list(guard.cascade.reply_views)
    for view, z in batch.judged.items():
        np.testing.assert_allclose([score.by[view] for score in scores], z, atol=2e-3)
    if np.isinf(theta):
        assert session.read == batch.read


@settings(max_examples=15)
@given(data=st.data())
def test_a_reply_is_stopped_where_the_first_view_would_stop_it(data: st.DataObject, chunked: Chunker, guard: Guard) -> None:
    """Thresholds at random; nothing leaves from the first token on that any view flags in the batch pass."""
    prompt = (Turn("user", "What about tulips?"),)
    (scored,) = guard.cascade.batch([Exchange("x", (*prompt, Turn("assistant", REPLY)))])
    thresholds = {view: data.draw(st.floats(0.01, 0.99), label=view) for view in scored.judged}
    views = {view: own.model_copy(update={"threshold": thresholds.get(view, 1.0)}) for view, own in guard.record.views.items()}
    strict = replace(guard, record=guard.record.model_copy(update={"views": views}))
    p = {view: strict.policies[view].probability(z[:, 0]) for view, z in scored.judged.items()}
    near = any(np.abs(own - thresholds[view]).min() < 2e-3 for view, own in p.items())
    firing = np.flatnonzero(np.any([own >= thresholds[view] for view, own in p.items()], axis=0))
    verdict = strict.judge(scored)
    assert verdict.position == (int(firing[0]) if len(firing) else None)
    assert verdict.score == max(own.max() for own in p.values())
    session = strict.open(prompt)
    released = "".join(session.push(piece) for piece in chunked(data, REPLY)) + session.flush()
    if not near:
        assert released == "".join(scored.judged_texts[: firing[0]] if len(firing) else REPLY)
        assert session.reply_verdict.position == verdict.position


def test_what_was_calibrated_is_what_serves_and_thresholds_can_be_moved(folder: Path, guard: Guard, data: Path) -> None:
    moved = recalibrate(folder, folder.parent / "moved" / folder.name).record
    assert moved.views == guard.record.views
    assert moved.balanced is not None
    assert set(moved.balanced.views) == set(guard.cascade.views)
    for view, fresh in score_dev(guard.cascade, data, guard.constitution).items():
        threshold = guard.policies[view].threshold
        p = guard.policies[view].probability(fresh.logits[:, 0])
        assert (p[~fresh.restricted] >= threshold).mean() <= 0.2, view
        assert (p[fresh.restricted] >= threshold).mean() >= 0.5, view


def test_its_figures_stand_beside_the_verdicts(guard: Guard, tmp_path: Path) -> None:
    flowers = [("tulips", True), ("roses", False)] * 8
    items = tuple(
        Item(exchange(f"Gladly: pots {n} of {f} is a matter of patience.", "Hm?"), bad, "s") for n, (f, bad) in enumerate(flowers)
    )
    results = evaluate(guard, [Set("talk", "response", items)], scores=tmp_path / "scores.jsonl")
    again = evaluate(guard, [Set("talk", "response", items)], scores=tmp_path / "scores.jsonl")
    assert again == results
    figures = of_set(results["talk"], 0)
    assert set(figures.get("views", {})) == (set(guard.cascade.reply_views) if len(guard.cascade.reply_views) > 1 else set())
    assert figures["auroc"]["value"] > 0.9
    found = streaming(guard, Drawn(tuple(item.exchange for item in items[:4]), 0, 4, 0), 0)
    assert (found["released_unscored_chars"], found["released_after_verdict_chars"]) == (0, 0)


def test_the_model_that_answers_has_read_the_prompt_so_it_can_not_serve_this_view(folder: Path) -> None:
    with pytest.raises(GuardError, match="must not see the prompt"):
        load(folder, generates=True)


def test_a_reply_alone_has_the_whole_context_for_itself(guard: Guard) -> None:
    long = "a key and a lock " * 35
    prompt = (Turn("user", long),)
    session = guard.open(prompt)
    if "exchange" in guard.cascade.views:
        with pytest.raises(BackboneError, match="longer than the backbone's context"):
            session.push(long)
    else:
        session.push(long)


@pytest.mark.parametrize("names", ["exchange", "prompt", "prompt,replies", "prompt,reply,reply", "", "prompt,exchange,"])
def test_views_that_can_not_judge_are_refused(names: str) -> None:
    with pytest.raises(DataError, match="a guard needs the view prompt and one or both of exchange and reply"):
        check_views(names.split(","))


@pytest.mark.parametrize("names", ["prompt,exchange", "reply,prompt", "prompt,reply,exchange"])
def test_views_are_known_by_name(names: str) -> None:
    assert check_views(names.split(",")) == tuple(names.split(","))
