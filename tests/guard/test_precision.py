"""Served with 16-bit weights: a stream's scores are a whole pass's, wherever the scorer runs, and near those of float32."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charter.errors import BackboneError
from charter.guard.folder import load
from charter.guard.precision import at_precision
from charter.guard.served import opener
from charter.models import halved, packed
from charter.records import Exchange, Turn

pytestmark = pytest.mark.skipif(not (packed.able() and halved.able()), reason="this torch has no product with 16-bit weights")
PROMPT = (Turn("user", "Is the door of the house open?"),)
REPLY = "The old door is open, and the lock of iron lies on the step beside it."


def _scores(guard: Any) -> list[float]:
    session = guard.open(PROMPT)
    for word in REPLY.split(" "):
        session.push(word + " ")
    session.flush()
    return [session.prompt_verdict.score, session.reply_verdict.score]


def test_word_by_word_is_as_a_whole_and_near_float32(chat_guard: Path) -> None:
    guard, exact = at_precision(load(chat_guard), "float16"), at_precision(load(chat_guard), "float32")
    assert isinstance(guard.cascade.backbone.body.layers[0].mlp.gate_proj, halved.HalvedLinear)
    whole, plain = (next(g.cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", REPLY)))])) for g in (guard, exact))
    assert whole.reply is not None
    assert plain.reply is not None
    session = guard.cascade.open(PROMPT)
    found = [s for word in REPLY.split(" ") for s in session.push(word + (" " if word != "it." else ""))] + session.flush()
    np.testing.assert_allclose([s.z for s in found], whole.reply, atol=1e-3)
    np.testing.assert_allclose(whole.reply, plain.reply, atol=0.05)
    assert not np.array_equal(whole.reply, plain.reply)


def test_a_scorer_process_rounds_as_this_one_does(chat_guard: Path) -> None:
    with ExitStack() as stack:
        here, apart, exact = (
            opener(chat_guard, "quiet", 0, where, stack, precision)()[0]
            for where, precision in (("here", "float16"), ("process", "float16"), ("here", "float32"))
        )
        np.testing.assert_allclose(_scores(here), _scores(apart), atol=1e-4)
        assert _scores(here) != _scores(exact)


def test_a_backbone_that_can_not_be_rounded_is_told(chat_guard: Path) -> None:
    guard = load(chat_guard)
    packed.unpack(guard.cascade.backbone.body.layers)
    with pytest.raises(BackboneError, match="leave --precision out"):
        at_precision(guard, "float16")
