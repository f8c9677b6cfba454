"""Scores on the model's own activations: those of one batched pass over the same tokens, whatever pieces the reply comes in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hearing
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.guard.folder import load
from charter.models.cascade import Cascade, Session
from charter.models.generation import Sampling
from charter.models.probe import WINDOW
from charter.models.scored import Score
from charter.models.segments import cut
from charter.models.stage import PRIOR, escalated, mixed
from charter.models.upstream_probe import UpstreamSession
from charter.records import Turn

PROMPT = (Turn("system", "Be brief."), Turn("user", "Is the door of the house open?"))


@pytest.fixture(scope="module")
def cascade(chat_guard: Path) -> Cascade:
    return load(chat_guard, generates=True).cascade


def _brute(cascade: Cascade, text: str, ids: list[int], states: Any, token_texts: list[str]) -> list[Any]:
    """Logits of each token of a reply from the definitions: the probe's average, the screen of the segment its last character is in."""
    weight, bias = cascade.probe.weights["exchange"], cascade.probe.biases["exchange"]
    z = states.flatten(1).numpy() @ weight.T + bias
    screen = cascade.screen.turn("exchange")
    segments = cut(text)
    from charter.models.encoder import Piece

    by_segment = [screen.feed([Piece((0,), s)])[0] for s in segments]
    ends = np.cumsum([len(s) for s in segments])
    out, at = [], 0
    for t in range(len(ids)):
        weights = ((WINDOW - 1) / WINDOW) ** np.arange(t, -1, -1)
        probe = (weights[:, None] * z[: t + 1]).sum(0) / weights.sum()
        closing = t == len(ids) - 1
        at += len(token_texts[t])
        place = min(int(np.searchsorted(ends, at + (not token_texts[t]))), len(segments) - 1)
        own = by_segment[-1 if closing else place] if segments else screen.feed([Piece((0,), "")])[0]
        share = 1.0 if closing else min(1.0, (t + 1) / WINDOW)
        mixed = 0.5 * probe + 0.5 * own
        out.append(PRIOR + share * (mixed - PRIOR))
    return out


@settings(max_examples=10)
@given(data=st.data(), seed=st.integers(0, 40))
def test_scores_are_those_of_a_batched_pass_under_any_chunking(
    data: st.DataObject, seed: int, chunked: Callable[[st.DataObject, str], list[str]], cascade: Cascade
) -> None:
    sampling = Sampling(20, temperature=1.0, seed=seed)
    session = UpstreamSession(cascade, PROMPT)
    text = "".join(session.write(sampling))
    scores: list[Score] = []
    received = ""
    for chunk in chunked(data, text):
        scores += session.push(chunk)
        received += chunk
        final = "".join(s.text for s in scores)
        assert received.startswith(final)
        assert len(final) <= sum(map(len, cut(received)[:-1]))
    scores += session.flush()
    assert "".join(s.text for s in scores) == text
    assert scores[-1].text == ""
    other = UpstreamSession(cascade, PROMPT)
    tokens = list(other.generation.tokens(sampling))
    prompt = [i for pieces, _ in other.generation.turns for p in pieces for i in p.ids] + list(cascade.backbone.chat.turns(PROMPT)[1])  # type: ignore[attr-defined]
    ids = [t.id for t in tokens]
    (states,) = cascade.backbone.batch([[*prompt, *ids]])
    rest = tokens[-1].text
    texts = [t.text for t in tokens[:-1]] + [""]
    if rest:
        texts[-2] += rest
    if text:  # of a reply that says nothing only the closing mark is scored
        assert [s.text for s in scores] == texts
        np.testing.assert_allclose([s.z for s in scores], _brute(cascade, text, ids, states[len(prompt) :], texts), atol=2e-3)


@settings(max_examples=10)
@given(share=st.floats(0, 1), seed=st.integers(0, 20))
def test_a_probe_that_waits_reads_from_the_escalation_on_what_it_would_have_read(share: float, seed: int, cascade: Cascade) -> None:
    def scores(cascade: Cascade) -> Any:
        session = UpstreamSession(cascade, PROMPT)
        pieces = session.write(Sampling(16, temperature=1.0, seed=seed))
        found = [score.z for text in pieces for score in session.push(text)]
        return np.array(found + [score.z for score in session.flush()])

    below = scores(replace(cascade, mix={"prompt": 0.0, "exchange": 0.0}))
    theta = float(np.quantile(below[:, 0], share, method="lower"))
    expected = np.where(escalated(below, theta)[:, None], scores(cascade), mixed(below, np.full_like(below, PRIOR), 0.5))
    waiting = scores(replace(cascade, escalate={"prompt": np.inf, "exchange": theta}))
    np.testing.assert_allclose(waiting, expected, atol=1e-3)


def test_every_turn_of_the_prompt_is_scored_in_the_prefill_and_ends_in_full(cascade: Cascade) -> None:
    session = UpstreamSession(cascade, PROMPT)
    assert "".join(s.text for s in session.opening) == "".join(t.content for t in PROMPT)
    assert len(session.opening) == sum(len(p.ids) for pieces, _ in session.generation.turns for p in pieces if p.text is not None)
    assert session.generation.drawn == 0
    own = Session(cascade, PROMPT).opening
    assert np.abs(session.opening[-1].z - own[-1].z).max() < 20  # another template and other tokens, the same kind of score


@pytest.mark.parametrize("pieces", [("\x00", 1), (1, " more"), (1, 1)])
def test_text_that_the_model_did_not_write_is_no_reply_of_its_own(pieces: tuple[Any, Any], cascade: Cascade) -> None:
    session = UpstreamSession(cascade, PROMPT)
    written = "".join(session.write(Sampling(6, temperature=1.0, seed=3)))
    assert written

    def hand_over() -> None:
        for piece in pieces:
            session.push(written if piece == 1 else piece)
        session.flush()

    with pytest.raises(BackboneError, match="not what the model wrote"):
        hand_over()


def test_a_reply_from_elsewhere_gets_the_guards_own_pass(cascade: Cascade) -> None:
    here, own = UpstreamSession(cascade, PROMPT), Session(cascade, PROMPT)
    came = here.push("The door is ")
    glanced = came + copy.deepcopy(here).flush()
    ours, theirs = came + here.push("open") + here.flush(), own.push("The door is open") + own.flush()
    assert "".join(s.text for s in glanced) == "The door is "
    for one, other in zip(ours, theirs, strict=True):
        assert one.text == other.text
        np.testing.assert_allclose(one.z, other.z, atol=1e-4)


def test_a_sentence_encoder_weighs_the_prompt_here_too(cascade: Cascade, tiny_bert: str) -> None:
    """What it makes of a turn comes from the text alone, so it is the same as in the guard's own pass."""
    heard = hearing.listening(cascade, tiny_bert, 0.4)
    without, found = UpstreamSession(cascade, PROMPT).opening, UpstreamSession(heard, PROMPT).opening
    assert [s.text for s in found] == [s.text for s in without]
    np.testing.assert_allclose([s.z for s in found[:3]], 0.6 * np.array([s.z for s in without[:3]]) + 0.4 * PRIOR, atol=1e-3)
    e = (Session(heard, PROMPT).opening[-1].z - 0.6 * _loudest(Session(cascade, PROMPT).opening)) / 0.4
    np.testing.assert_allclose(found[-1].z, 0.6 * _loudest(without) + 0.4 * e, atol=2e-2)


def _loudest(scores: list[Score]) -> Any:
    """Highest logits of the last turn's tokens: those after the mark that ends the one before."""
    ends = [n for n, score in enumerate(scores[:-1]) if score.text == ""]
    return np.max([s.z for s in scores[ends[-1] + 1 :]], 0)
