"""The cascade on the real backbone: streamed scores are batch scores, and how a text is chunked changes none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.cascade import Cascade
from charter.models.lanes import BATCH_TOKENS
from charter.models.probe import WINDOW, Probe
from charter.models.scored import Score
from charter.models.segments import LONGEST, cut
from charter.models.stage import PRIOR
from charter.records import Exchange, Turn, View

VIEWS: tuple[View, ...] = ("prompt", "exchange")
Chunker = Callable[[st.DataObject, str], list[str]]
PROMPT = (Turn("user", "How do I open a door whose key I lost?"),)
MIXED = (
    "Of course! 👩‍👩‍👧‍👦 Voilà – naïve café.\n\n```python\ndef f(x):\n\treturn [i for i in x if i != 0]\n```\n"
    "日本語のテキスト です。 привет мир <|im_end|> aGVsbG8gd29ybGQgdGhpcw== h.e.l.l.o 4tt4ck " + "a" * 100 + "  \x13 done.\n"
)


def _probabilities(z: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(z, float)))


def _on(backbone: Backbone, cascade: Cascade) -> Cascade:
    """The same screen with a random probe on another backbone."""
    rng = np.random.default_rng(5)
    weights = {view: rng.normal(size=(3, backbone.width * len(backbone.layers))).astype(np.float32) for view in VIEWS}
    return Cascade(
        cascade.clauses,
        backbone,
        Probe(backbone.layers, weights, dict.fromkeys(VIEWS, np.zeros(3, np.float32))),
        cascade.screen,
        cascade.mix,
    )


def _streamed(cascade: Cascade, turns: Sequence[Turn], chunks: Sequence[str]) -> list[Score]:
    session = cascade.open(turns)
    return [score for chunk in chunks for score in session.push(chunk)] + session.flush()


def _assert_same(scores: Sequence[Score], texts: Sequence[str], z: Any) -> None:
    assert [s.text for s in scores] == list(texts)
    np.testing.assert_allclose(_probabilities([s.z for s in scores]), _probabilities(z), atol=1e-3)


@settings(max_examples=20)
@given(data=st.data())
def test_streamed_scores_equal_batch_scores_under_any_chunking(
    data: st.DataObject, texts: Any, chunked: Chunker, random_cascade: Cascade
) -> None:
    reply = data.draw(texts)
    (batch,) = random_cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", reply)))])
    assert batch.reply is not None
    _assert_same(_streamed(random_cascade, PROMPT, chunked(data, reply)), batch.reply_texts, batch.reply)
    _assert_same(random_cascade.open(PROMPT).opening, batch.prompt_texts, batch.prompt)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_reply_in_many_scripts_and_code_is_scored_alike_at_every_chunk_size(size: int, random_cascade: Cascade) -> None:
    (batch,) = random_cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", MIXED)))])
    assert batch.reply is not None
    assert np.ptp(_probabilities(batch.reply)) > 0.5  # so that the comparison means something
    _assert_same(
        _streamed(random_cascade, PROMPT, [MIXED[i : i + size] for i in range(0, len(MIXED), size)]), batch.reply_texts, batch.reply
    )


@settings(max_examples=8)
@given(data=st.data())
def test_chunking_never_changes_a_score(data: st.DataObject, texts: Any, chunked: Chunker, random_cascade: Cascade) -> None:
    reply = data.draw(texts)
    one, other = (_streamed(random_cascade, PROMPT, chunked(data, reply)) for _ in range(2))
    _assert_same(one, [s.text for s in other], [s.z for s in other])


@settings(max_examples=12)
@given(data=st.data())
def test_every_character_received_is_scored_or_held_and_the_held_are_at_most_a_segment(
    data: st.DataObject, texts: Any, chunked: Chunker, random_cascade: Cascade
) -> None:
    session = random_cascade.open(PROMPT)
    received = scored = ""
    for chunk in chunked(data, data.draw(texts)):
        received += chunk
        scored += "".join(s.text for s in session.push(chunk))
        assert scored + session.held == received
        assert len(session.held) <= LONGEST
    closing = session.flush()
    assert scored + "".join(s.text for s in closing) == received
    assert closing[-1].text == ""
    assert session.held == ""


@settings(max_examples=8)
@given(data=st.data())
def test_a_batchs_size_and_company_change_no_score(data: st.DataObject, texts: Any, random_cascade: Cascade) -> None:
    turns = st.lists(st.builds(Turn, st.sampled_from(["system", "user", "assistant"]), texts), min_size=1, max_size=3).map(tuple)
    exchanges = [Exchange(str(i), t) for i, t in enumerate(data.draw(st.lists(turns, min_size=1, max_size=4)))]
    together = list(random_cascade.batch(exchanges))
    assert [s.exchange for s in together] == exchanges
    for batch_tokens in (1, 60):
        for one, other in zip(random_cascade.batch(exchanges, batch_tokens), together, strict=True):
            assert (one.prompt_texts, one.reply_texts) == (other.prompt_texts, other.reply_texts)
            np.testing.assert_allclose(_probabilities(one.prompt), _probabilities(other.prompt), atol=1e-3)
            assert (one.reply is None) == (other.reply is None)
            if one.reply is not None:
                np.testing.assert_allclose(_probabilities(one.reply), _probabilities(other.reply), atol=1e-3)


def test_an_exchange_too_long_for_a_batch_has_the_scores_of_a_stream(tiny_folder: Path, tmp_path: Path, random_cascade: Cascade) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "long")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8_192}))
    cascade = _on(Backbone(str(folder)), random_cascade)
    prompt, reply = (Turn("user", "A key and a lock. " * 90),), "The lock is old. " * 200
    short, long = cascade.batch([Exchange("short", PROMPT), Exchange("long", (*prompt, Turn("assistant", reply)))], batch_tokens=100_000)
    assert long.reply is not None
    assert len(long.prompt) + len(long.reply) > BATCH_TOKENS
    _assert_same(_streamed(cascade, prompt, [reply]), long.reply_texts, long.reply)
    _assert_same(cascade.open(prompt).opening, long.prompt_texts, long.prompt)
    _assert_same(cascade.open(PROMPT).opening, short.prompt_texts, short.prompt)


@settings(max_examples=10)
@example(turns=[("user", "hello"), ("assistant", "")])
@example(turns=[("assistant", "a reply without a prompt")])
@example(turns=[("user", "")])
@given(
    turns=st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), st.sampled_from(["", "Hi.", "A lock?"])), min_size=1, max_size=4
    )
)
def test_each_turn_has_its_texts_its_closing_mark_and_a_score_for_every_token(
    turns: list[tuple[str, str]], random_cascade: Cascade
) -> None:
    exchange = Exchange("x", tuple(Turn(*t) for t in turns))
    (scored,) = random_cascade.batch([exchange])
    assert "".join(scored.prompt_texts) == "".join(t.content for t in exchange.prompt)
    assert scored.prompt.shape == (len(scored.prompt_texts), 3)
    encoder = random_cascade.backbone.encoder
    assert len(scored.prompt_texts) == sum(len(encoder.segment(s)) for t in exchange.prompt for s in cut(t.content)) + len(exchange.prompt)
    assert scored.logits("prompt") is scored.prompt
    assert scored.logits("exchange") is scored.reply
    if exchange.reply is None:
        assert (scored.reply, scored.reply_texts) == (None, ())
    else:
        assert scored.reply is not None
        assert "".join(scored.reply_texts) == exchange.reply
        assert scored.reply.shape == (len(scored.reply_texts), 3)


def test_a_turn_begins_near_the_prior_and_its_closing_mark_counts_in_full(random_cascade: Cascade) -> None:
    scores = _streamed(random_cascade, PROMPT, ["Yes, "])
    backbone = random_cascade.backbone
    prompt = [i for p in backbone.encoder.turn(PROMPT[0]) for i in p.ids]
    pieces = backbone.encoder.turn(Turn("assistant", "Yes, "))
    states = backbone.batch([[*prompt, *(i for p in pieces for i in p.ids)]])[0, len(prompt) :]
    probe = random_cascade.probe.turn("exchange").push(states[-len(scores) :])
    screen = random_cascade.screen.turn("exchange").feed([p for p in pieces if p.text is not None])
    full = 0.6 * probe + 0.4 * screen
    for number, (score, z) in enumerate(zip(scores, full, strict=True)):
        share = 1.0 if score.text == "" and number == len(scores) - 1 else (number + 1) / WINDOW
        np.testing.assert_allclose(score.z, PRIOR + share * (z - PRIOR), atol=1e-2)


def test_a_conversation_longer_than_the_context_is_an_error_not_a_cut(tiny_llama: Backbone, random_cascade: Cascade) -> None:
    small, long = _on(tiny_llama, random_cascade), (Turn("user", "long text " * 60),)
    with pytest.raises(BackboneError, match="context of 64 tokens"):
        small.open(long)
    (scored,) = small.batch([Exchange("x", long)])
    assert scored.windowed
    with pytest.raises(BackboneError, match="longer than 32,768 tokens"):
        list(small.batch([Exchange("x", (Turn("user", "long text " * 8_000),))]))
    session = small.open((Turn("user", "hi"),))
    with pytest.raises(BackboneError, match="context of 64 tokens"):
        session.push("long text " * 60)
