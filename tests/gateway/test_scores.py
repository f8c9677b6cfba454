"""Scores within a stream: each token of what left has one, in order; what was withheld is told by its score alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spelled import PROMPT, REPLY, Spelled, spelled
from tests.gateway.conftest import Oracle, Script, Scripted, answers, content, events, says, serving

from charter.gateway.app import create_app
from charter.gateway.settings import Settings
from charter.models.segments import cut

Ask = Callable[..., list[Any]]
TOKENS = {"x-charter-scores": "tokens"}


@pytest.fixture(scope="module")
def asks(upstream: Scripted) -> Iterator[Callable[..., Ask]]:
    """Ways to ask a gateway with a playground, by its settings; each gateway is started once."""
    from contextlib import ExitStack

    running: dict[str, Ask] = {}
    with ExitStack() as stack:

        def get(guard: Any = None, **more: Any) -> Ask:
            key = repr((getattr(guard, "lookahead", type(guard)), more))
            if key not in running:
                app = create_app(guard or Spelled(), Settings(upstream.url, **{"playground": True, **more}))
                http = stack.enter_context(httpx2.Client(base_url=stack.enter_context(serving(app)), timeout=60, trust_env=False))

                def ask(script: Script, prompt: Any = "hello there", headers: dict[str, str] = TOKENS, **body: Any) -> list[Any]:
                    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
                    asked = {"model": upstream.plays(script), "messages": turns, "stream": True, **body}
                    response = http.post("/v1/chat/completions", json=asked, headers=headers)
                    return events(response.content) if asked["stream"] else [response.json()]

                running[key] = ask
            return running[key]

        yield get


def notes(chunks: list[Any], of: str) -> list[dict[str, Any]]:
    return [c["charter"][of] for c in chunks if isinstance(c, dict) and c.get("object") == "charter.scores" and of in c["charter"]]


def told(chunks: list[Any]) -> list[list[Any]]:
    """The reply's tokens, put together; each note goes on where the one before ended."""
    tokens: list[list[Any]] = []
    for note in notes(chunks, "reply"):
        assert note["start"] == len(tokens)
        tokens += note["tokens"]
    return tokens


WORDS = st.lists(
    st.sampled_from(["calm ", "naïve 日本 ", "a😀b\n", "drizzle~12 ", "gust~49 ", "storm~50 ", "flood~97 ", "x" * 70 + " "]),
    min_size=1,
    max_size=12,
)


@given(WORDS, st.data(), st.sampled_from([("enforce", 0), ("enforce", 2), ("shadow", 0)]))
@settings(max_examples=60)
def test_every_token_that_left_is_told_and_no_more_than_a_score_of_any_other(
    asks: Callable[..., Ask], words: list[str], data: st.DataObject, kind: tuple[str, int]
) -> None:
    mode, lookahead = kind
    text = "".join(words)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    chunks = asks(Spelled(lookahead), mode=mode)(says(*pieces))
    segments = [*cut(text), ""]
    scores = [spelled(s) for s in segments]
    flag = next((n for n, score in enumerate(scores) if score >= REPLY), None)
    tokens = told(chunks)
    assert content(chunks) == (text if mode == "shadow" or flag is None else "".join(segments[: max(0, flag - lookahead)]))
    assert [score for _, score in tokens] == pytest.approx(scores if flag is None else scores[: flag + 1], abs=1e-6)
    lengths = [len(s) for s in segments[: len(tokens)]]
    if mode == "enforce" and flag is not None:
        lengths = lengths[: max(0, flag - lookahead)] + [None] * min(flag + 1, lookahead + 1)
    assert [n for n, _ in tokens] == lengths
    assert notes(chunks, "reply")[-1]["verdict"]["position"] == flag
    assert notes(chunks, "reply")[-1]["held"] == 0
    assert chunks[-1] == "[DONE]"
    letters = "".join(json.dumps(c["charter"]) for c in chunks if isinstance(c, dict) and c.get("object") == "charter.scores")
    assert not any(word in letters for word in ("calm", "storm~", "flood~", "日", "xxx"))


def test_the_prompts_tokens_come_first_turn_by_turn(asks: Callable[..., Ask]) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "a gust~60 of wind"}]
    chunks = asks()(says("yes "), turns)
    (note,) = notes(chunks, "prompt")
    assert chunks[0]["charter"]["prompt"] == note
    expected = [s for turn in turns for s in [*cut(turn["content"]), ""]]
    assert note["tokens"] == [[len(s), pytest.approx(spelled(s), abs=1e-6)] for s in expected]
    assert (note["verdict"]["flagged"], note["action"]) == (False, "allow")


def test_a_refused_prompt_is_told_before_the_refusal(asks: Callable[..., Ask]) -> None:
    chunks = asks()(says("never"), "a storm~85 please")
    (note,) = notes(chunks, "prompt")
    assert note["verdict"] == {"flagged": True, "score": pytest.approx(0.85), "clause": "storms", "position": 1}
    assert (note["action"], note["tokens"][1][0], content(chunks), notes(chunks, "reply")) == ("block", len(" storm~85"), "", [])
    assert note["tokens"][1][1] >= PROMPT


@pytest.mark.parametrize("on_block", ["content_filter", "error", "refusal"])
def test_the_operators_words_are_nobodys_tokens(asks: Callable[..., Ask], on_block: str) -> None:
    chunks = asks(on_block=on_block, refusal="storm~50 no")(says("calm seas ", "storm~50 ", "calm"))
    assert [n for n, _ in told(chunks)] == [4, 5, None]


def test_a_stream_is_the_same_without_the_notes(asks: Callable[..., Ask]) -> None:
    script = says("calm ", "seas and storm~77 then more")
    plain = asks()(script, headers={})
    assert [c for c in asks()(script) if c == "[DONE]" or c["object"] != "charter.scores"] == plain
    for chunks in (plain, asks()(script, headers={"x-charter-scores": "yes"}), asks(playground=False)(script)):
        assert "charter.scores" not in json.dumps(chunks)


def test_whole_replies_and_guards_that_tell_no_tokens_have_no_notes(asks: Callable[..., Ask]) -> None:
    assert "charter" not in asks()(answers("calm"), stream=False)[0]
    assert "charter.scores" not in json.dumps(asks(Oracle())(says("calm ", "seas")))


def test_text_that_waits_is_counted_as_held(asks: Callable[..., Ask]) -> None:
    held = [note["held"] for note in notes(asks()(says("calm se", "as ri", "sing")), "reply")]
    assert held == [len(" se"), len(" ri"), 0]
