"""The labelled replies: sound, spread over deeds, reasons and languages, and composed the same way each time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from charter.errors import DataError
from charter.refusals.replies import DEEDS, Reply, authored, composed, reasons, recorded


def test_what_was_written_covers_all_deeds_and_reasons_and_many_languages() -> None:
    written = authored()
    assert len(written) >= 600
    assert len({reply.text for reply in written}) == len(written)
    deeds = Counter(reply.did for reply in written)
    assert all(deeds[did] >= 50 for did in DEEDS)
    given = Counter(reason for reply in written for reason in reply.why or ())
    assert all(given[reason] >= 10 for known in reasons().values() for reason in known)
    assert {reply.by for reply in written} == {"authored"}
    for did in ("refused", "complied"):
        assert len({reply.lang for reply in written if reply.did == did}) >= 20


def test_a_reason_brings_its_parent_and_compliance_has_none() -> None:
    for reply in authored():
        for parent, known in reasons().items():
            assert not (reply.why or set()) & known.keys() or parent in (reply.why or ())
        assert reply.did != "complied" or not reply.why


def test_recorded_replies_leave_out_what_the_embedded_model_wrote() -> None:
    deeds = Counter(reply.did for reply in recorded())
    assert deeds["refused"] > 1_000
    assert deeds["complied"] > 1_000
    assert set(deeds) == {"refused", "complied"}


def test_composed_replies_hold_their_pieces_and_keep_their_label() -> None:
    refusal, answer = (
        Reply("I cannot go there.", "refused", frozenset({"cannot"})),
        Reply("The harbour lies east of the mill. " * 3, "complied"),
    )
    made = composed([refusal, answer], 200, seed=3)
    assert made == composed([refusal, answer], 200, seed=3) != composed([refusal, answer], 200, seed=4)
    assert {reply.did for reply in made} == set(DEEDS)
    for reply in made:
        assert (answer.text.strip() in reply.text) == (reply.did in ("complied", "partly"))
        assert reply.did != "partly" or reply.text.index(refusal.text) < reply.text.index(answer.text.strip())
        assert reply.did != "complied" or refusal.text not in reply.text


def test_composing_needs_both_kinds() -> None:
    with pytest.raises(DataError, match="some of both"):
        composed([Reply("No.", "refused")], 5)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"reply": "", "did": "refused"}', "replies.jsonl:2: a row needs a `reply`"),
        ('{"reply": "No.", "did": "shrugged"}', "refused, partly, complied"),
        ('{"reply": "No.", "did": "refused", "why": ["mood"]}', "`why` must be a list of reasons"),
        ('{"reply": "No.", "did": "refused", "why": "privacy"}', "`why` must be a list of reasons"),
        ("No.", "not JSON"),
    ],
)
def test_a_row_that_is_off_is_named(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "replies.jsonl"
    file.write_text(json.dumps({"reply": "No.", "did": "refused"}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=says.replace("[", r"\[")):
        authored(file)


def test_reasons_of_another_shape_are_refused(tmp_path: Path) -> None:
    (tmp_path / "reasons.json").write_text('{"cannot": {}}')
    with pytest.raises(DataError, match="must hold two objects"):
        reasons(tmp_path / "reasons.json")
    with pytest.raises(DataError, match="can't be read"):
        reasons(tmp_path / "none.json")
