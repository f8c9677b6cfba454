"""Escalation: a later stage is asked from the token that looks suspicious, whatever the chunks, and no token is read twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from heads import random_change
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.models.cascade import Cascade, Session
from charter.models.scored import Scored
from charter.models.stage import ALWAYS, PRIOR, Source, along, escalated
from charter.models.value_head import ValueHead
from charter.records import Exchange, Turn, View

Chunker = Callable[[st.DataObject, str], list[str]]
VIEWS: tuple[View, ...] = ("prompt", "exchange")
PROMPT = (Turn("system", "Be brief."), Turn("user", "How do I open a door whose key I lost?"))
REPLY = "Call a locksmith, who asks for papers first. " * 6 + "Then the lock is opened, and a potion is brewed of it."
HEAD_MIX: dict[View, float] = {"prompt": 0.4, "exchange": 0.7}


def both(theta: float) -> dict[View, float]:
    return dict.fromkeys(VIEWS, theta)


@pytest.fixture(scope="module")
def shapes(random_cascade: Cascade) -> dict[str, Cascade]:
    """Stage 2 a probe, stage 2 a value head, and both in a row."""
    head = ValueHead(random_change("embedded", 4, 2, size=0.05))
    with_head = random_cascade.with_head(head, HEAD_MIX, both(ALWAYS))
    return {"probe": random_cascade, "head": with_head, "probe and head": with_head}


def gated(cascade: Cascade, shape: str, theta: dict[View, float]) -> Cascade:
    if "probe" in shape:
        cascade = replace(cascade, escalate=theta)
    if "head" in shape:
        assert cascade.head
        cascade = replace(cascade, head=replace(cascade.head, escalate=theta))
    return cascade


def by_hand(cascade: Cascade, exchange: Exchange) -> list[tuple[View, np.ndarray]]:
    """The logits of each turn from the formula, all stages having read everything."""
    (runs,) = cascade.reading_all().apart([exchange])
    out = []
    for run in runs:
        z = run.apart[0]
        for stage, own in zip(cascade.stages, run.apart[1:], strict=True):
            reached = np.maximum.accumulate(z[:, 0]) >= stage.escalate[run.view]
            a = stage.mix[run.view]
            z = (1 - a) * z + a * np.where(reached[:, None], own, PRIOR)
        out.append((run.view, z))
    return out


def safe_theta(cascade: Cascade, exchange: Exchange, quantile: float) -> float:
    """About that quantile of what the stages reach, and clear of every value: rounding must not decide the test."""
    (runs,) = cascade.reading_all().apart([exchange])
    values = [-50.0]
    for run in runs:
        z = run.apart[0]
        values += z[:, 0].tolist()
        for stage, own in zip(cascade.stages, run.apart[1:], strict=True):
            a = stage.mix[run.view]
            values += ((1 - a) * z + a * PRIOR)[:, 0].tolist()
            z = (1 - a) * z + a * own
            values += z[:, 0].tolist()
    order = np.unique(values)
    wide = np.flatnonzero(np.diff(order) > 0.01)
    at = wide[min(len(wide) - 1, int(quantile * len(wide)))]
    return float(order[at] + order[at + 1]) / 2


def below_the_head(cascade: Cascade, exchange: Exchange) -> np.ndarray:
    """Overall logits of the reply by screen and probe."""
    (runs,) = replace(cascade, head=None).apart([exchange])
    return np.asarray(runs[-1].z[:, 0])


def widest_gap(values: Any) -> float:
    order = np.unique(values)
    at = int(np.argmax(np.diff(order)))
    return float(order[at] + order[at + 1]) / 2


def streamed(cascade: Cascade, chunks: Sequence[str]) -> tuple[Session, np.ndarray, np.ndarray]:
    session = cascade.open(PROMPT)
    reply = [score for chunk in chunks for score in session.push(chunk)] + session.flush()
    return session, np.array([s.z for s in session.opening]), np.array([s.z for s in reply])


@settings(max_examples=10)
@given(data=st.data(), shape=st.sampled_from(["probe", "head", "probe and head"]), quantile=st.floats(0, 1))
def test_streamed_batched_and_by_the_formula_are_one(
    data: st.DataObject, shape: str, quantile: float, texts: Any, chunked: Chunker, shapes: dict[str, Cascade]
) -> None:
    reply = data.draw(texts)
    exchange = Exchange("x", (*PROMPT, Turn("assistant", reply)))
    theta = safe_theta(shapes[shape], exchange, quantile)
    cascade = gated(shapes[shape], shape, both(theta))
    (batch,) = cascade.batch([exchange])
    assert batch.reply is not None
    session, opening, streamed_reply = streamed(cascade, chunked(data, reply))
    expected = by_hand(cascade, exchange)
    for found in (batch.reply, streamed_reply):
        np.testing.assert_allclose(found, expected[-1][1], atol=5e-3)
    for found in (batch.prompt, opening):
        np.testing.assert_allclose(found, np.concatenate([z for _, z in expected[:-1]]), atol=5e-3)
    assert (session.tokens, session.read) == (batch.tokens, batch.read)
    assert all(read <= batch.tokens for read in batch.read)


@pytest.mark.parametrize("shape", ["probe", "head", "probe and head"])
def test_what_looks_harmless_is_never_read_by_a_later_stage(shape: str, shapes: dict[str, Cascade]) -> None:
    cascade = gated(shapes[shape], shape, both(1e6))
    ran: list[int] = []
    quiet = cascade.stages[-1].backbone
    hook = quiet._model.register_forward_hook(lambda *_: ran.append(1))
    try:
        (scored,) = cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", REPLY)))])
        session, _, reply = streamed(cascade, [REPLY])
    finally:
        hook.remove()
    assert not ran
    assert scored.read[-1] == session.read[-1] == 0
    assert scored.tokens == session.tokens > 60
    (runs,) = cascade.apart([Exchange("x", (*PROMPT, Turn("assistant", REPLY)))])
    assert (runs[-1].apart[-1] == PRIOR).all()
    np.testing.assert_allclose(reply, runs[-1].z, atol=1e-3)


def test_a_stage_reads_the_conversation_once_it_is_asked_and_then_every_token_once(shapes: dict[str, Cascade]) -> None:
    """Counted at the model: as many tokens go through it as the session says, in any chunking."""
    exchange = Exchange("x", (*PROMPT, Turn("assistant", REPLY)))
    theta = widest_gap(np.maximum.accumulate(below_the_head(shapes["head"], exchange)))
    cascade = gated(shapes["head"], "head", {"prompt": 1e6, "exchange": theta})
    assert cascade.head
    through: list[int] = []
    model = cascade.head.backbone._model
    hook = model.register_forward_hook(lambda _m, _a, kw, _o: through.append(kw["input_ids"].numel()), with_kwargs=True)
    try:
        session, _, _ = streamed(cascade, [REPLY[i : i + 11] for i in range(0, len(REPLY), 11)])
        assert sum(through) == session.read[-1]
        (scored,) = cascade.batch([exchange])
    finally:
        hook.remove()
    assert session.read == scored.read == (scored.tokens, scored.tokens)
    assert len(through) > 5  # it went on token by token


def test_a_turn_that_is_escalated_makes_no_later_turn_so(shapes: dict[str, Cascade]) -> None:
    exchange = Exchange("x", (*PROMPT, Turn("assistant", REPLY)))
    cascade = gated(shapes["head"], "head", {"prompt": ALWAYS, "exchange": 1e6})
    (scored,) = cascade.batch([exchange])
    prompt = sum(len(p.ids) for turn in PROMPT for p in cascade.backbone.encoder.turn(turn))
    assert scored.read == (scored.tokens, prompt)
    assert streamed(cascade, [REPLY])[0].read == scored.read


def test_company_in_a_batch_changes_no_score_whoever_is_escalated(shapes: dict[str, Cascade]) -> None:
    exchanges = [Exchange(str(n), (*PROMPT[: n % 2 + 1], Turn("assistant", REPLY[n * 20 :]))) for n in range(6)]
    theta = widest_gap([below_the_head(shapes["head"], e).max() for e in exchanges])
    cascade = gated(shapes["head"], "head", {"prompt": 1e6, "exchange": theta})
    together, alone = list(cascade.batch(exchanges)), [next(iter(cascade.batch([e]))) for e in exchanges]
    assert len({s.read[-1] > 0 for s in together}) == 2  # some are, some are not
    for one, other in zip(together, alone, strict=True):
        assert (one.tokens, one.read) == (other.tokens, other.read)
        assert one.reply is not None
        np.testing.assert_allclose(one.reply, other.reply, atol=5e-3)


def test_a_session_refuses_an_over_long_conversation_even_where_no_stage_would_read_it_and_a_batch_windows_it(
    random_cascade: Cascade,
) -> None:
    cascade = gated(random_cascade, "probe", both(1e6))
    long = (Turn("user", "word " * (cascade.backbone.context + 1)),)
    with pytest.raises(BackboneError, match="longer than the backbone's context of 8,192 tokens"):
        cascade.open(long)
    (scored,) = cascade.batch([Exchange("x", long)])
    assert (scored.windowed, scored.read) == (True, (0,))
    endless = (Turn("user", "word " * (cascade.longest + 1)),)
    with pytest.raises(BackboneError, match="longer than 32,768 tokens, more than is read in windows"):
        list(cascade.batch([Exchange("x", endless)]))


@given(z=st.lists(st.floats(-20, 20) | st.just(float("nan")), max_size=30), theta=st.floats(-20, 20))
def test_from_the_first_token_that_reaches_the_threshold_all_are_escalated(z: list[float], theta: float) -> None:
    found = escalated(np.array([[value, 0.0] for value in z], np.float32).reshape(-1, 2), theta)
    first = next((n for n, value in enumerate(np.float32(z)) if not value < theta), len(z))
    assert found.tolist() == [n >= first for n in range(len(z))]


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12))
def test_a_source_gives_every_state_once_and_in_order(steps: list[tuple[int, bool]]) -> None:
    total = sum(n for n, _ in steps)
    states = torch.arange(total, dtype=torch.float32)[:, None, None]
    source, got, added = Source(along(states), total), [], 0
    for n, asked in steps:
        source.add(range(added, added + n))
        added += n
        if asked:
            got += source.catch_up().flatten().tolist()
            assert source.read == added
    assert got == list(range(source.read))
    with pytest.raises(BackboneError):
        source.add([0])


def test_scored_holds_the_heads_for_both_views(shapes: dict[str, Cascade]) -> None:
    """Each view is mixed by its own share: with the head's share at 0 the cascade is the one without it."""
    exchange = Exchange("x", (*PROMPT, Turn("assistant", REPLY)))
    assert shapes["head"].head
    silent = replace(shapes["head"], head=replace(shapes["head"].head, mix=dict.fromkeys(VIEWS, 0.0)))
    found: list[Scored] = [next(iter(c.batch([exchange]))) for c in (silent, shapes["probe"])]
    for view in VIEWS:
        np.testing.assert_array_equal(found[0].logits(view), found[1].logits(view))
