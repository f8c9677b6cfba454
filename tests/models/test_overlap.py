"""Texts longer than the context: read in overlapping windows, whatever the steps, and every token is scored."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.models.backbone import Backbone
from charter.models.cascade import Cascade
from charter.models.overlap import Overlapping
from charter.models.probe import Probe
from charter.models.segments import cut
from charter.records import Exchange, Turn


@settings(max_examples=20)
@given(n=st.integers(0, 200), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_each_window_is_an_ordinary_forward_and_steps_change_nothing(n: int, cuts: list[int], tiny_llama: Backbone) -> None:
    """By hand: windows of 64 begin at every 32nd token, and each token is taken from the first that holds it."""
    ids = np.random.default_rng(n).integers(0, 255, n).tolist()
    stream, edges = Overlapping(tiny_llama), [0, *sorted(min(c, n) for c in cuts), n]
    got = torch.cat([stream.feed(ids[a:b]) for a, b in pairwise(edges)])
    assert len(got) == n
    context, step = tiny_llama.context, tiny_llama.context // 2
    assert context == 64
    for start in range(0, max(0, n - step), step):
        own = tiny_llama.batch([ids[start : start + context]])[0]
        seen = step if start else 0
        torch.testing.assert_close(got[start + seen : start + context], own[seen:], atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def small(tiny_llama: Backbone, random_cascade: Cascade) -> Cascade:
    rng = np.random.default_rng(5)
    weights = {view: rng.normal(size=(3, 32)).astype(np.float32) for view in random_cascade.views}
    probe = Probe(tiny_llama.layers, weights, {view: np.zeros(3, np.float32) for view in weights})
    return Cascade(random_cascade.clauses, tiny_llama, probe, random_cascade.screen, random_cascade.mix)


def test_every_token_of_a_long_exchange_is_scored_and_company_changes_nothing(small: Cascade) -> None:
    prompt, reply = "How do I open a door? " * 12, "The lock is old. " * 20
    long = Exchange("long", (Turn("user", prompt), Turn("assistant", reply)))
    short = Exchange("short", (Turn("user", "hi"),))
    first, second = small.batch([long, short], batch_tokens=100_000)
    (alone,) = small.batch([long])
    assert (first.windowed, second.windowed) == (True, False)
    assert ("".join(first.prompt_texts), "".join(first.reply_texts)) == (prompt, reply)
    assert len(first.reply_texts) == 1 + sum(len(small.backbone.encoder.segment(s)) for s in cut(reply))
    assert first.reply is not None
    np.testing.assert_allclose(first.reply, alone.reply, atol=1e-3)
    assert np.isfinite(first.reply).all()
    assert first.read == (first.tokens,)


def test_what_fits_the_context_is_read_whole(small: Cascade) -> None:
    exchange = Exchange("x", (Turn("user", "a lock"), Turn("assistant", "a key")))
    (scored,) = small.batch([exchange])
    session = small.open(exchange.prompt)
    scores = session.push("a key") + session.flush()
    assert not scored.windowed
    np.testing.assert_allclose([s.z for s in scores], scored.reply, atol=1e-3)
