from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.constitution import Constitution
from charter.errors import DataError
from charter.records import Example, Turn, check_whole, read_examples, write_examples
from charter.synthesis.build import Options, synthesize
from charter.synthesis.decisions import FILE, Decision, apply, decide, flipped, read_decisions, reviewed
from charter.synthesis.items import Item, Written, from_pool, home, key, written_for
from charter.synthesis.manifest import Manifest
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.split import split

SLICES = sorted(f.name.removesuffix(".jsonl") for f in (resources.files("charter") / "constitutions" / "benign").iterdir())
"""The benign pools, of which one is enough here."""
CHOICES = st.sampled_from(["keep", "flip", "drop"])


def build(constitution: Constitution, recordings: Path, out: Path, **options: Any) -> Manifest:
    chosen = Options(**options, without_pools=tuple(name for name in SLICES if name != "chat"))
    return anyio.run(synthesize, constitution, RecordedTeacher(constitution, recordings), chosen, out)


@pytest.fixture
def made(constitution: Constitution, recordings: Path, tmp_path: Path) -> Path:
    build(constitution, recordings, tmp_path, augment_rate=0.5)
    return tmp_path


def rows(folder: Path, parent: str) -> list[Example]:
    return [row for row in read_examples(folder) if row.parent == parent]


def parents(folder: Path, clause: str, family: str = "plain") -> list[str]:
    """Parents of a clause that have a row of the family and a reply."""
    found = [row for row in read_examples(folder) if row.clause == clause and row.reply_restricted is not None]
    return [row.parent for row in found if row.family == family]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["keep", "flip", "drop", "undo"])), max_size=12))
def test_the_last_decision_that_was_not_taken_back_stands(tmp_path_factory: pytest.TempPathFactory, made: list[tuple[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("decisions")
    stacks: dict[str, list[str]] = {"a": [], "b": []}
    for name, choice in made:
        decide(folder, Decision(name, "cellar", choice))
        if choice != "undo":
            stacks[name].append(choice)
        elif stacks[name]:
            stacks[name].pop()
    assert {k[0]: d.choice for k, d in read_decisions(folder).items()} == {name: stack[-1] for name, stack in stacks.items() if stack}


def test_a_decision_after_a_line_without_an_end_is_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"id": "a", "home": "wine", "choice": "keep"}))
    decide(tmp_path, Decision("b", "wine", "drop"))
    assert [d.choice for d in read_decisions(tmp_path).values()] == ["keep", "drop"]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"id": "a", "home": "b", "choice": "burn"}', '{"id": 1, "home": "b", "choice": "keep"}']
)
def test_a_malformed_line_is_named_before_anything_is_asked(
    constitution: Constitution, recordings: Path, tmp_path: Path, line: str
) -> None:
    decide(tmp_path, Decision("a", "wine", "keep"))
    with (tmp_path / FILE).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=r"reviewed\.jsonl:2"):
        build(constitution, recordings, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE]


def test_a_reply_keeps_what_it_does_through_a_flip(constitution: Constitution) -> None:
    both = (Written("refusal", "no"), Written("compliance", "yes", "x"))
    item = replace(written_for(constitution["cellar"], (Turn("user", "a"),), "m"), replies=both, kin="k")
    across = flipped(item, constitution["wine"])
    assert across == replace(
        item, clause="wine", side="permitted", slice="permitted:wine", replies=(both[0], Written("answer", "yes", "x"))
    )
    assert flipped(across, constitution["cellar"]) == replace(item, replies=both[:1])


@given(st.lists(CHOICES, min_size=4, max_size=4), st.integers(0, 3))
def test_the_stage_does_what_was_decided_and_counts_it(constitution: Constitution, choices: list[Any], gone: int) -> None:
    clauses = ["cellar", "wine", "cooking"]
    items = [written_for(constitution[c], (Turn("user", c),), "m") for c in clauses] + [from_pool("chat", (Turn("user", "x"),), None, "m")]
    made = {key(item): Decision(*key(item), choice) for item, choice in zip(items, choices, strict=True)}
    made |= {(f"{n}", "wine"): Decision(f"{n}", "wine", "drop") for n in range(gone)}
    outcome, met = reviewed(items, made, constitution)
    assert len(outcome.kept) + sum(outcome.dropped.values()) == 4
    assert len(outcome.kept) == 4 - choices.count("drop")
    assert sum(met.values()) == len(made)
    impossible = choices[2:].count("flip")  # neither has a clause across the line
    assert met == {
        "keep": choices.count("keep"), "flip": choices.count("flip") - impossible, "drop": choices.count("drop"), "gone": gone + impossible,
    }  # fmt: skip
    assert reviewed(items, {}, constitution)[0].kept == items


def test_drops_and_flips_change_the_rows_of_their_parents_and_no_others(made: Path, constitution: Constitution) -> None:
    copied = {row.parent for row in read_examples(made) if row.family not in ("plain", "turning")}
    to_drop = next(p for p in parents(made, "cellar") if p in copied)
    to_permit = next(p for p in parents(made, "cellar") if p in copied and p != to_drop)
    turned = parents(made, "wine", "turning")
    to_restrict = next(p for p in parents(made, "wine") if p in copied and p not in turned)
    before = list(read_examples(made))
    for parent, place, choice in (
        (to_drop, "cellar", "drop"), (to_permit, "cellar", "flip"), (to_restrict, "wine", "flip"),
        (turned[0], "wine", "drop"), ("nobody", "wine", "drop"), (parents(made, "wine")[-1], "wine", "keep"),
    ):  # fmt: skip
        decide(made, Decision(parent, place, choice))  # type: ignore[arg-type]
    gone_or_changed = apply(made, constitution)
    after = list(read_examples(made))
    touched = {to_drop, to_permit, to_restrict, turned[0]}
    assert [row for row in before if row.parent not in touched] == [row for row in after if row.parent not in touched]
    assert gone_or_changed == len(set(before) - set(after)) == sum(row.parent in touched for row in before)
    assert rows(made, to_drop) == rows(made, turned[0]) == []

    permitted = rows(made, to_permit)
    assert len(permitted) == sum(row.parent == to_permit for row in before) >= 6
    for row in permitted:
        assert (row.clause, row.side, row.slice, row.prompt_restricted) == ("wine", "permitted", "permitted:wine", False)
        assert row.clause_hash == constitution["wine"].hash
        assert row.reply_restricted is not True
    restricted = rows(made, to_restrict)
    assert {(r.clause, r.side, r.slice, r.prompt_restricted, r.reply_restricted) for r in restricted} == {
        ("cellar", "restricted", "restricted:cellar", True, None)
    }
    assert {r.split for r in after if r.parent in touched} <= {r.split for r in before if r.parent in touched}


def test_applying_again_changes_nothing_and_the_manifest_follows_the_rows(made: Path, constitution: Constitution) -> None:
    for parent, choice in zip(parents(made, "cellar")[:6:2], ("drop", "flip", "keep"), strict=True):
        decide(made, Decision(parent, "cellar", choice))  # type: ignore[arg-type]
    assert apply(made, constitution) > 0
    data = (made / "examples.parquet").read_bytes()
    written = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    assert written["rows"] == sum(1 for _ in read_examples(made)) == sum(written["counts"]["split"].values())
    assert written["reviewed"] == {"keep": 1, "flip": 1, "drop": 1, "gone": 0}
    assert apply(made, constitution) == 0
    assert (made / "examples.parquet").read_bytes() == data


@given(made_of=st.lists(st.tuples(st.sampled_from(["cellar", "wine", "chat", "nobody"]), CHOICES), max_size=5), again=st.booleans())
def test_decisions_that_meet_no_item_are_counted_as_gone_however_often_they_are_applied(
    constitution: Constitution, tmp_path_factory: pytest.TempPathFactory, made_of: list[tuple[str, Any]], again: bool
) -> None:
    folder = tmp_path_factory.mktemp("gone")
    plain = [written_for(constitution[c], (Turn("user", c),), "m") for c in ("cellar", "wine")]
    items = [*plain, from_pool("chat", (Turn("user", "x"),), None, "m")]
    write_examples(folder / "examples.parquet", split(items, 0, {c.id: c.hash for c in constitution.clauses}, ()))
    Manifest({}, "m", 0, {}).write(folder / "manifest.json")
    places = {home(item): item.parent for item in items}
    for name, choice in made_of:
        decide(folder, Decision(places.get(name, "nobody"), name if name in places else "wine", choice))
    standing = dict(made_of)
    impossible = sum(name == "nobody" or (name == "chat" and choice == "flip") for name, choice in standing.items())
    for _ in range(1 + again):
        apply(folder, constitution)
        check_whole(folder)
        met = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["reviewed"]
        assert sum(met.values()) == len(standing)
        assert met["gone"] == impossible


def test_the_next_run_into_the_folder_applies_them_to_the_items(made: Path, constitution: Constitution, recordings: Path) -> None:
    drop, flip = parents(made, "cellar")[0], parents(made, "cellar")[2]
    assert drop != flip
    for decision in (Decision(drop, "cellar", "drop"), Decision(flip, "cellar", "flip"), Decision("nobody", "chat", "keep")):
        decide(made, decision)
    apply(made, constitution)
    by_hand = {row.id: row for row in read_examples(made) if row.parent == flip}
    manifest = build(constitution, recordings, made, augment_rate=0.5)
    assert manifest.reviewed == {"keep": 0, "flip": 1, "drop": 1, "gone": 1}
    assert rows(made, drop) == []
    again = {row.id: row for row in rows(made, flip) if row.family != "turning"}
    assert again == by_hand
    assert next(s for s in manifest.stages if s.name == "review").dropped == {"dropped in review": 1}
    apply(made, constitution)  # the rows of what that run dropped were never there
    assert json.loads((made / "manifest.json").read_text(encoding="utf-8"))["reviewed"] == manifest.reviewed


def test_without_decisions_there_is_no_such_stage(made: Path) -> None:
    written = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    assert "review" not in {stage["name"] for stage in written["stages"]}
    assert written["reviewed"] == {}


@pytest.mark.parametrize("damage", [b"{", b"[1]", b"\xff"])
def test_a_damaged_manifest_is_one_sentence(made: Path, constitution: Constitution, damage: bytes) -> None:
    (made / "manifest.json").write_bytes(damage)
    decide(made, Decision("a", "wine", "keep"))
    with pytest.raises(DataError, match="manifest"):
        apply(made, constitution)


def test_items_know_their_place(constitution: Constitution) -> None:
    item: Item = from_pool("chat", (Turn("user", "x"),), None, "m")
    assert key(item) == (item.parent, "chat")
