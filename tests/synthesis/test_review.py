from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.constitution import Constitution
from charter.errors import DataError
from charter.records import Turn, read_examples
from charter.synthesis.build import Options, synthesize
from charter.synthesis.crossfit import Second
from charter.synthesis.decisions import read_decisions
from charter.synthesis.items import Item, from_pool, key, written_for
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.review import FILE, LISTED, Doubt, Walk, doubts, read_doubts, write_doubts


@pytest.fixture
def listed(constitution: Constitution) -> list[Doubt]:
    items = [written_for(constitution[c], (Turn("user", f"{c} {n}"),), "m") for n in range(2) for c in ("cellar", "wine", "cooking")]
    items.append(from_pool("chat", (Turn("user", "\ud800 odd"),), None, "m"))
    return doubts(items, {key(item): Second(0.1 + n / 100, "wine") for n, item in enumerate(items)})


@pytest.fixture
def folder(constitution: Constitution, listed: list[Doubt], tmp_path: Path) -> Path:
    write_doubts(tmp_path, listed)
    (tmp_path / "constitution.yaml").write_text(constitution.source)
    return tmp_path


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300), st.randoms(use_true_random=False))
def test_the_least_certain_come_first_in_an_order_of_their_own(chances: list[float], random: object) -> None:
    items = [from_pool("chat", (Turn("user", f"text {n}"),), None, "m") for n in range(len(chances))]
    opinions = {key(item): Second(p, "") for item, p in zip(items, chances, strict=True)}
    found = doubts(items, opinions)
    shuffled = items[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert doubts(shuffled, opinions) == found
    assert [d.probability for d in found] == sorted(round(p, 4) for p in chances)[:LISTED]
    assert len({d.key for d in found}) == min(LISTED, len(items))


def test_copies_unknown_items_and_decided_ones_are_not_listed(constitution: Constitution) -> None:
    items: list[Item] = [written_for(constitution["cellar"], (Turn("user", f"text {n}"),), "m") for n in range(4)]
    opinions = {key(item): Second(0.5, "") for item in items[:3]}
    flipped = replace(items[2], clause="wine", side="permitted", slice="permitted:wine")
    opinions[key(flipped)] = Second(0.5, "")
    given_items = [*items[:2], flipped, items[3], items[0].with_prompt("TEXT", "casing")]
    assert [d.id for d in doubts(given_items, opinions, [key(items[1]), key(items[2])])] == [items[0].parent]


def test_the_list_survives_being_written(listed: list[Doubt], folder: Path) -> None:
    assert read_doubts(folder) == listed


@pytest.mark.parametrize(
    "change",
    [{"id": 3}, {"turns": []}, {"turns": [{"role": "user"}]}, {"turns": "x"}, {"probability": None}, {"nearest": None}, {"slice": 1}],
)
def test_a_malformed_line_is_named(folder: Path, change: dict[str, object]) -> None:
    lines = (folder / FILE).read_text().split("\n")
    lines[1] = json.dumps(json.loads(lines[1]) | change)
    (folder / FILE).write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"review\.jsonl:2"):
        Walk(folder)


def test_a_folder_without_a_list_or_a_constitution_says_what_to_run(folder: Path, tmp_path: Path) -> None:
    (folder / FILE).unlink()
    with pytest.raises(DataError, match="charter synthesize"):
        Walk(folder)
    with pytest.raises(DataError, match=r"constitution\.yaml"):
        Walk(tmp_path / "missing")


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["keep", "flip", "drop", "skip", "undo", "leave"]), max_size=20))
def test_whatever_a_person_does_the_file_holds_what_stands_and_a_new_walk_goes_on_there(
    tmp_path_factory: pytest.TempPathFactory, constitution: Constitution, acts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("walk")
    (folder / "constitution.yaml").write_text(constitution.source)
    items = [written_for(constitution[c], (Turn("user", c),), "m") for c in ("cellar", "wine", "cooking")]
    write_doubts(folder, doubts(items, {key(item): Second(0.1, "") for item in items}))
    walk = Walk(folder)
    for act in acts:
        doubt, place = walk.current, walk.place
        if act == "leave":
            walk = Walk(folder)
            assert not walk.undo()
        elif act == "undo":
            walk.undo()
        elif act == "skip":
            walk.skip()
            assert walk.place > place or doubt is None
        else:
            done = walk.choose(act)  # type: ignore[arg-type]
            assert done == (doubt is not None and (act != "flip" or doubt.clause != "cooking"))
            assert walk.place > place if done else walk.place == place
        assert read_decisions(folder) == walk.decisions
        assert walk.current is None or walk.current.key not in walk.decisions
    assert Walk(folder).current is None or Walk(folder).current.key not in read_decisions(folder)  # type: ignore[union-attr]


def test_pools_and_clauses_without_a_counterpart_cannot_be_flipped(folder: Path) -> None:
    walk = Walk(folder)
    seen = {}
    while (doubt := walk.current) is not None:
        counterpart = walk.counterpart(doubt)
        seen[doubt.slice] = counterpart.id if counterpart else None
        assert walk.choose("flip") == (counterpart is not None)
        walk.skip() if counterpart is None else None
    assert seen == {"restricted:cellar": "wine", "permitted:wine": "cellar", "permitted:cooking": None, "chat": None}
    assert not walk.choose("keep")


def test_a_run_lists_its_doubts_and_finishing_applies_the_decisions(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    options = Options(without_pools=("business", "code", "knowledge", "language", "mathematics", "science", "tasks", "writing"))
    manifest = anyio.run(synthesize, constitution, RecordedTeacher(constitution, recordings), options, tmp_path)
    walk = Walk(tmp_path)
    assert len(walk.listed) == LISTED == manifest.to_review
    assert [d.probability for d in walk.listed] == sorted(d.probability for d in walk.listed)
    plain = {(row.parent, row.clause or row.slice) for row in read_examples(tmp_path) if row.family == "plain"}
    assert {d.key for d in walk.listed} <= plain
    assert walk.finish() == 0
    dropped = walk.current
    assert dropped is not None
    assert walk.choose("drop")
    assert walk.finish() >= 1
    assert dropped.id not in {row.parent for row in read_examples(tmp_path)}
    anyio.run(synthesize, constitution, RecordedTeacher(constitution, recordings), options, tmp_path)
    assert dropped.id not in {d.id for d in Walk(tmp_path).listed}
