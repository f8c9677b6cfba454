"""The guarantee on a model that reads itself: nothing unscored leaves, nothing after the verdict, and harmless replies are untouched."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError, GuardError
from charter.guard.folder import read_record
from charter.guard.in_process import InProcessGuard, load_in_process
from charter.guard.record import HeadRecord
from charter.guard.scorers import HEAD
from charter.models.generation import Sampling
from charter.models.segments import cut
from charter.models.upstream_probe import UpstreamSession
from charter.records import Turn

PROMPT = (Turn("user", "Is the door of the house open?"),)


@pytest.fixture(scope="module")
def guard(chat_guard: Path, chat_folder: Path) -> InProcessGuard:
    return load_in_process(chat_guard, str(chat_folder))


def at(guard: InProcessGuard, threshold: float) -> InProcessGuard:
    """The guard with another threshold for replies."""
    record = guard.guard.record
    views = {**record.views, "exchange": record.views["exchange"].model_copy(update={"threshold": threshold})}
    return InProcessGuard(replace(guard.guard, record=record.model_copy(update={"views": views})))


@settings(max_examples=15)
@given(
    threshold=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0])),
    seed=st.integers(0, 20),
    n=st.integers(1, 20),
    stop=st.lists(st.sampled_from(["e", "th", " ", "\ufffd", "zz"]), max_size=2),
)
def test_what_leaves_is_scored_and_stands_before_the_verdict(
    threshold: float, seed: int, n: int, stop: list[str], guard: InProcessGuard
) -> None:
    sampling = Sampling(n, temperature=1.0, seed=seed, stop=tuple(stop))
    free = UpstreamSession(guard.guard.cascade, PROMPT)
    reply = "".join(free.write(sampling))
    scores = free.push(reply) + free.flush()
    assert "".join(s.text for s in scores) == reply
    fires = guard.guard.policies["exchange"].probability(np.array([s.z for s in scores]))[:, 0] >= threshold
    first = int(np.argmax(fires)) if fires.any() else None

    session = at(guard, threshold).open(PROMPT)
    received = released = ""
    for text in session.write(sampling):
        received += text
        released += session.push(text)
        assert len(released) <= sum(map(len, cut(received)[:-1]))  # the open segment is not scored yet
        if session.reply_verdict.flagged:
            break
    else:
        released += session.flush()
    close = abs(float(np.min(np.abs(guard.guard.policies["exchange"].probability(np.array([s.z for s in scores]))[:, 0] - threshold))))
    if first is None:
        assert (released, session.reply_verdict.flagged) == (reply, False)
    elif close > 1e-4:  # else rounding decides on which side a score falls
        assert (released, session.reply_verdict.position) == ("".join(s.text for s in scores[:first]), first)
        assert session.push("") == session.flush() == ""


def test_another_models_weights_are_refused(saved_guard: Path, chat_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"is not the model that the guard 'test-guard' was trained on|has blocks 1 to 2"):
        load_in_process(saved_guard, str(chat_folder))


def test_a_value_head_reads_other_weights_and_is_refused(chat_guard: Path, chat_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "guard"
    shutil.copytree(chat_guard, folder)
    record, _ = read_record(folder)
    (folder / HEAD).write_bytes(b"a head")
    views = {view: own.model_copy(update={"head": HeadRecord(mix=0.5)}) for view, own in record.views.items()}
    files = {**record.files, HEAD: hashlib.sha256(b"a head").hexdigest()}
    (folder / "guard.json").write_text(record.model_copy(update={"views": views, "files": files}).model_dump_json())
    with pytest.raises(GuardError, match="has a value head"):
        load_in_process(folder, str(chat_folder))


def test_point_and_lookahead_are_those_asked_for(chat_guard: Path, chat_folder: Path) -> None:
    with pytest.raises(GuardError, match="no balanced operating point"):
        load_in_process(chat_guard, str(chat_folder), point="balanced")
    session = load_in_process(chat_guard, str(chat_folder), lookahead=500).open(PROMPT)
    released = [session.push(text) for text in session.write(Sampling(20, temperature=1.0, seed=5))]
    assert (set(released), bool(session.flush())) == ({""}, True)


def test_the_embedded_model_answers_and_reads_itself(saved_guard: Path) -> None:
    guard = load_in_process(saved_guard)
    sampling = Sampling(5, temperature=0)
    session = at(guard, 1.0).open((Turn("user", "Say hello."),))
    assert session.prompt_verdict.score > 0
    released = "".join(session.push(text) for text in session.write(sampling)) + session.flush()
    free = guard.guard.cascade.backbone.start((Turn("user", "Say hello."),))  # type: ignore[attr-defined]
    assert released == "".join(t.text for t in free.tokens(sampling)) != ""
    assert set(guard.clause_scores(session)) == set(guard.clauses)
