"""What ships as data: enough of it, in many forms, matched across the line, with honest provenance."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from functools import cache
from importlib import resources
from typing import Any

import pytest

from charter.constitution import Clause, load
from charter.synthesis.pools import pools
from charter.synthesis.recorded import read_rows, turns_of

NOTHING_RECORDED = {"child-safety"}
"""By rule such a clause has its text and no examples beyond a plain statement."""
LINK = re.compile(r"https?:|www\.|\S@\S+\.")
AUTHORED_ALONE = {
    "sexual-crimes", "sexual-explicit", "hate-speech", "mass-casualty-weapons", "self-harm", "illegal-drugs", "weapons-explosives",
    "extremism-terrorism", "malware", "dangerous-health",
}  # fmt: skip
"""Clauses in which the embedded model never complies at length: what it makes up there can't be told to be hollow beforehand."""
SHIPPED = ("general", "chemical-weapons")


@cache
def recorded(constitution: str) -> dict[str, list[dict[str, Any]]]:
    """Rows by clause."""
    folder = resources.files("charter") / "constitutions" / constitution
    return {
        file.name.removesuffix(".jsonl"): [row | {"turns": turns_of(row, where)} for where, row in read_rows(file)]
        for file in folder.iterdir()
        if file.name.endswith(".jsonl")
    }


def words(row: dict[str, Any]) -> int:
    return len(row["turns"][-1].content.split())


def test_the_general_constitution_is_broad_and_every_line_has_two_sides() -> None:
    constitution = load("general")
    assert len(constitution.restricted) >= 20
    assert len(constitution.permitted) >= 24
    assert all(clause.counterpart for clause in constitution.restricted)


@pytest.mark.parametrize("clause", load("general").clauses, ids=lambda clause: clause.id)
def test_every_clause_of_the_general_constitution_has_150_prompts(clause: Clause) -> None:
    if clause.id in NOTHING_RECORDED:
        assert clause.id not in recorded("general")
        return
    assert len(recorded("general")[clause.id]) >= 150


@pytest.mark.parametrize("name", SHIPPED)
def test_the_prompts_come_in_many_forms(name: str) -> None:
    rows = [row for rows in recorded(name).values() for row in rows]
    several = [row for row in rows if len(row["turns"]) > 1]
    assert len(several) >= 0.1 * len(rows)
    assert all(2 <= len(row["turns"]) <= 6 or "system" in row for row in several)
    languages = Counter(row.get("lang", "en") for row in rows)
    assert all(languages[code] >= 15 for code in ("de", "es", "fr", "zh"))
    questions = sum("?" in row["turns"][-1].content for row in rows)
    assert 0.2 < questions / len(rows) < 0.7


@pytest.mark.parametrize("name", SHIPPED)
def test_the_two_sides_of_a_line_are_alike_in_length(name: str) -> None:
    constitution = load(name)
    for clause in constitution.restricted:
        if clause.id not in NOTHING_RECORDED and clause.counterpart:
            sides = [statistics.median(map(words, recorded(name)[own])) for own in (clause.id, clause.counterpart)]
            assert max(sides) <= 1.6 * min(sides), f"{clause.id}: median words {sides}"


@pytest.mark.parametrize("name", SHIPPED)
def test_restricted_prompts_have_a_refusal_and_a_compliance_and_permitted_ones_an_answer(name: str) -> None:
    constitution = load(name)
    for clause in constitution.clauses:
        rows = recorded(name).get(clause.id, [])
        kinds = Counter(kind for row in rows for kind in ("refusal", "compliance", "answer") if kind in row)
        if clause.restricted:
            assert not kinds["answer"]
            assert clause.id in NOTHING_RECORDED or min(kinds["refusal"], kinds["compliance"]) >= 20
        else:
            assert not kinds["refusal"]
            assert not kinds["compliance"]
            assert kinds["answer"] >= 10


def test_replies_at_length_are_on_both_sides_and_as_their_kind_says() -> None:
    constitution = load("general")
    counts: Counter[tuple[str, str, str]] = Counter()
    for clause in constitution.clauses:
        for row in recorded("general").get(clause.id, []):
            texts = [own["text"] for own in row.get("at_length", ())]
            assert len(set(texts)) == len(texts)
            for own in row.get("at_length", ()):
                assert own["kind"] in (("compliance", "refusal", "deflection") if clause.restricted else ("answer",))
                assert own["kind"] == "answer" or not LINK.search(own["text"]), clause.id
                counts[clause.side, own["kind"], own.get("by", "authored")] += len(own["text"].split()) >= 30
    assert min(counts["restricted", "compliance", "authored"], counts["permitted", "answer", "authored"]) >= 450
    assert min(counts["restricted", "refusal", "authored"], counts["restricted", "deflection", "authored"]) >= 150
    assert {by for _, _, by in counts} == {"authored", "embedded"}


def test_the_embedded_model_complies_at_length_only_where_little_harm_can_come_of_it() -> None:
    by_embedded = {
        name for name, rows in recorded("general").items() for row in rows for own in row.get("at_length", ())
        if own["kind"] == "compliance" and own.get("by") == "embedded"
    }  # fmt: skip
    assert not by_embedded & AUTHORED_ALONE


@pytest.mark.parametrize("name", SHIPPED)
def test_every_clause_has_twelve_subtopics(name: str) -> None:
    from charter.records import parse_object

    topics = parse_object((resources.files("charter") / "constitutions" / name / "topics.json").read_text(encoding="utf-8"), "topics.json")
    for clause in recorded(name):
        assert len({topic.casefold() for topic in topics[clause]}) >= 12, clause
    assert set(topics) <= {clause.id for clause in load(name).clauses}


def test_the_pools_are_large_enough_to_certify_a_tenth_of_a_per_cent() -> None:
    items = pools(load("general"))
    slices = Counter(item.slice for item in items)
    assert len(items) >= 3_000
    assert len(slices) >= 12
    assert {item.teacher for item in items} <= {"recorded:authored", "recorded:embedded"}
