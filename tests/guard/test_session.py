"""A guarded conversation on the real backbone: what leaves is exactly what was scored before the first crossing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from charter.guard.policy import Judge
from charter.guard.session import GuardSession
from charter.models.calibrate import ViewPolicy
from charter.records import Exchange, Turn, Verdict, View

if TYPE_CHECKING:
    from charter.models.cascade import Cascade

Chunker = Callable[[st.DataObject, str], list[str]]
PROMPT = (Turn("user", "How do I open a door whose key I lost?"),)
REPLY = (
    "A locksmith can do it 😀. First, naïvely:\n```python\nwhile not door.open:\n\ttry_key(next(keys))\n```\n日本語のテキスト and then "
    "aGVsbG8gd29ybGQgdGhpcw== <|im_end|> 4tt4ck the old lock until it gives way; call the landlord before you break anything at all.\n"
)
PASSES = ViewPolicy(1.0, 1.0, 0.0)


def _midway(z: np.ndarray) -> tuple[float, int] | None:
    """A threshold clear of every score, first crossed by the token nearest the middle; None where no token stands out."""
    p = PASSES.probability(z)[:, 0]
    before = np.maximum.accumulate(np.concatenate([[0.0], p[:-1]]))
    clear = [t for t in range(1, len(p)) if p[t] - before[t] > 4e-3]
    if not clear:
        return None
    crossing = min(clear, key=lambda t: abs(t - len(p) / 2))
    return float((p[crossing] + before[crossing]) / 2), crossing


def _scored(cascade: Cascade, reply: str) -> tuple[np.ndarray, Sequence[str]]:
    (scored,) = cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", reply)))])
    assert scored.reply is not None
    return scored.reply, scored.reply_texts


def _session(cascade: Cascade, prompt: ViewPolicy, reply: ViewPolicy) -> GuardSession:
    policies: dict[View, ViewPolicy] = {"prompt": prompt, "exchange": reply}
    return GuardSession(cascade.open(PROMPT), policies, cascade.clauses)


def _flags_midway(data: st.DataObject, cascade: Cascade, chunks: list[str]) -> None:
    z, texts = _scored(cascade, "".join(chunks))
    found = _midway(z)
    assume(found is not None)
    assert found is not None
    threshold, crossing = found
    session = _session(cascade, PASSES, ViewPolicy(threshold, 1.0, 0.0))
    allowed, released = "".join(texts[:crossing]), ""
    for chunk in chunks:
        released += session.push(chunk)
        assert allowed.startswith(released)
    released += session.flush()
    verdict = session.reply_verdict
    assert released == allowed
    assert (verdict.flagged, verdict.position) == (True, crossing)
    assert verdict.clause == cascade.clauses[int(np.argmax(z[crossing, 1:]))]
    assert session.push("more") == session.flush() == ""


@settings(max_examples=12)
@given(data=st.data())
def test_everything_before_the_first_crossing_leaves_and_nothing_from_it_on(
    data: st.DataObject, chunked: Chunker, random_cascade: Cascade
) -> None:
    _flags_midway(data, random_cascade, chunked(data, REPLY))


@settings(max_examples=12)
@given(data=st.data())
def test_whatever_the_text_it_leaves_up_to_the_flag(data: st.DataObject, texts: Any, chunked: Chunker, random_cascade: Cascade) -> None:
    _flags_midway(data, random_cascade, chunked(data, data.draw(texts)))


@settings(max_examples=8)
@given(data=st.data())
def test_a_reply_that_passes_leaves_whole_and_nothing_before_it_was_scored(
    data: st.DataObject, texts: Any, chunked: Chunker, random_cascade: Cascade
) -> None:
    text = data.draw(texts)
    session, alone = _session(random_cascade, PASSES, PASSES), random_cascade.open(PROMPT)
    for chunk in chunked(data, text):
        assert session.push(chunk) == "".join(s.text for s in alone.push(chunk))
    assert session.flush() == "".join(s.text for s in alone.flush())
    assert not session.reply_verdict.flagged


def test_the_chosen_crossing_lies_inside_the_reply_and_splits_characters_of_several_tokens(random_cascade: Cascade) -> None:
    """Guards the tests above: were there nothing before or after the flag, they would show little."""
    z, texts = _scored(random_cascade, REPLY)
    found = _midway(z)
    assert found is not None
    assert 10 < found[1] < len(z) - 10
    assert "" in texts[:-1]


def test_verdicts_start_empty_and_the_prompts_is_there_at_once(random_cascade: Cascade) -> None:
    session = _session(random_cascade, ViewPolicy(0.0, 1.0, 0.0), PASSES)
    assert session.prompt_verdict.flagged
    assert session.prompt_verdict.position == 0
    assert session.prompt_verdict.clause in random_cascade.clauses
    assert session.reply_verdict == Verdict(False, 0.0, None, None)


def test_the_prompt_and_the_reply_are_judged_by_their_own_policies(random_cascade: Cascade) -> None:
    (scored,) = random_cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", REPLY)))])
    prompt, reply = ViewPolicy(0.9, 1.5, 0.2), ViewPolicy(1.0, 3.0, -0.4)
    session = _session(random_cascade, prompt, reply)
    released = session.push(REPLY) + session.flush()
    assert released == REPLY
    for policy, z, verdict in ((prompt, scored.prompt, session.prompt_verdict), (reply, scored.reply, session.reply_verdict)):
        judge = Judge(policy, random_cascade.clauses)
        for row in z:
            judge.push(row)
        assert verdict.score == pytest.approx(judge.verdict.score, abs=1e-3)
        assert verdict.flagged == judge.verdict.flagged


def test_clause_scores_are_the_highest_of_prompt_and_reply_together(random_cascade: Cascade) -> None:
    (scored,) = random_cascade.batch([Exchange("x", (*PROMPT, Turn("assistant", REPLY)))])
    assert scored.reply is not None
    session = _session(random_cascade, PASSES, PASSES)
    before = session.clause_scores
    session.push(REPLY)
    session.flush()
    for number, clause in enumerate(random_cascade.clauses, 1):
        highest = [float(PASSES.probability(z[:, number]).max()) for z in (scored.prompt, scored.reply)]
        assert before[clause] == pytest.approx(highest[0], abs=1e-3)
        assert session.clause_scores[clause] == pytest.approx(max(highest), abs=1e-3)


def test_a_copy_goes_on_by_itself_and_shares_the_model(random_cascade: Cascade) -> None:
    import copy

    session, alone, other = (_session(random_cascade, PASSES, PASSES) for _ in range(3))
    half, another = len(REPLY) // 2, " and something else altogether"
    for each in (session, alone, other):
        each.push(REPLY[:half])
    twin = copy.deepcopy(session)
    assert twin._reply._session._cascade is random_cascade
    for goes_on, by_itself, rest in ((twin, other, another), (session, alone, REPLY[half:])):
        assert goes_on.push(rest) + goes_on.flush() == by_itself.push(rest) + by_itself.flush()
        assert (goes_on.reply_verdict, goes_on.clause_scores) == (by_itself.reply_verdict, by_itself.clause_scores)


def test_a_guards_lookahead_keeps_the_last_tokens_until_the_end(random_cascade: Cascade) -> None:
    policies: dict[View, ViewPolicy] = {"prompt": PASSES, "exchange": PASSES}
    plain = _session(random_cascade, PASSES, PASSES)
    later = GuardSession(random_cascade.open(PROMPT), policies, random_cascade.clauses, 5)
    now, then = plain.push(REPLY), later.push(REPLY)
    assert now.startswith(then)
    assert len(then) < len(now)
    assert then + later.flush() == now + plain.flush() == REPLY
