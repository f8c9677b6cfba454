from __future__ import annotations

import json
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.constitution import Clause, Constitution, load
from charter.errors import DataError
from charter.records import Example, read_examples
from charter.synthesis.build import MAX_SEED, Options, plan, synthesize
from charter.synthesis.families import HELD_OUT, held
from charter.synthesis.manifest import Manifest
from charter.synthesis.pools import pools
from charter.synthesis.recorded import RecordedTeacher

POOLS = {item.slice for item in pools(load("general"))}


def build(constitution: Constitution, recordings: Path | None, out: Path, **options: Any) -> Manifest:
    return anyio.run(synthesize, constitution, RecordedTeacher(constitution, recordings), Options(**options), out)


@pytest.fixture(scope="module")
def made(constitution: Constitution, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Example], Manifest, Path]:
    out = tmp_path_factory.mktemp("made")
    manifest = build(constitution, recordings, out)
    return list(read_examples(out)), manifest, out


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    constitution: Constitution, recordings: Path, made: tuple[list[Example], Manifest, Path], tmp_path: Path
) -> None:
    for name in ("examples.parquet", "manifest.json", "constitution.yaml"):
        build(constitution, recordings, tmp_path / "again")
        assert (tmp_path / "again" / name).read_bytes() == (made[2] / name).read_bytes()
    build(constitution, recordings, tmp_path / "other", seed=1)
    assert (tmp_path / "other" / "examples.parquet").read_bytes() != (made[2] / "examples.parquet").read_bytes()


def test_ids_are_unique_and_every_row_is_labelled_by_its_own_parts(
    made: tuple[list[Example], Manifest, Path], constitution: Constitution
) -> None:
    rows = made[0]
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert (row.reply_restricted is None) == (row.turns[-1].role == "user")
        assert row.prompt_restricted == (row.side == "restricted" and row.family != "turning")
        assert row.clause_hash == (constitution[row.clause].hash if row.clause else "")
        assert not row.reply_restricted or row.side == "restricted"
        if row.reply_restricted is not None and "The refusal to" in row.turns[-1].content:
            assert row.reply_restricted is False


def test_every_item_has_a_row_without_a_reply_and_one_for_each_reply(made: tuple[list[Example], Manifest, Path]) -> None:
    views: dict[tuple[Any, str], Counter[str]] = defaultdict(Counter)
    for row in made[0]:
        if row.family == "plain" and row.clause in ("cellar", "wine"):
            turns = row.turns if row.reply_restricted is None else row.turns[:-1]
            views[turns, row.clause]["without" if row.reply_restricted is None else str(row.reply_restricted)] += 1
    assert all(count["without"] == 1 for count in views.values())
    assert Counter(tuple(sorted(c.items())) for (_, clause), c in views.items() if clause == "cellar") == {
        (("without", 1),): 102, (("False", 1), ("True", 1), ("without", 1)): 100,
    }  # fmt: skip


def test_a_parent_never_crosses_the_splits_and_held_out_families_stay_in_test(made: tuple[list[Example], Manifest, Path]) -> None:
    places = defaultdict(set)
    for row in made[0]:
        places[row.parent].add(row.split)
        assert not held(row.family, HELD_OUT) or row.split == "test"
    assert all(len(split) == 1 for split in places.values())
    assert len(set(HELD_OUT) & {row.family for row in made[0]}) >= len(HELD_OUT) - 2  # a few copies each: chance may miss one


def test_turning_rows_are_restricted_replies_to_harmless_prompts_in_every_split(made: tuple[list[Example], Manifest, Path]) -> None:
    turned = [row for row in made[0] if row.family == "turning" and row.reply_restricted]
    parents = {row.parent: row for row in made[0] if row.family == "plain" and row.reply_restricted is None}
    assert len(turned) == 8
    assert all((row.clause, row.slice, row.prompt_restricted) == ("cellar", "restricted:cellar", False) for row in turned)
    assert all(parents[row.parent].clause == "wine" for row in turned)


def test_the_manifest_adds_up(made: tuple[list[Example], Manifest, Path]) -> None:
    rows, manifest, out = made
    written = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert written["rows"] == len(rows) == sum(written["counts"]["split"].values()) == sum(written["counts"]["label"].values())
    assert [stage["name"] for stage in written["stages"]] == ["prompts", "replies", "pools", "label", "scorer", "augment", "dedupe"]
    for stage in written["stages"]:
        assert stage["made"] == stage["kept"] + sum(stage["dropped"].values())
        assert stage["made"] == sum(clause["made"] for clause in stage["clauses"].values())
        assert stage["kept"] == sum(clause["kept"] for clause in stage["clauses"].values())
    assert written["stages"][0]["clauses"]["cellar"] == {"made": 202, "kept": 202}
    assert written["stages"][1]["replies"] == {"answer": 100, "compliance": 100, "refusal": 100}
    assert manifest.lines()[-1].startswith(f"rows: {len(rows):,}")
    items = next(stage["clauses"] for stage in written["stages"] if stage["name"] == "label")
    assert {name: rates["n"] for name, rates in written["agreement"].items()} == {name: n["kept"] for name, n in items.items()}
    assert all(rates["teacher"] is None and 0 <= rates["crossfit"] <= 1 for rates in written["agreement"].values())
    assert written["kin"]["items"] >= 2 * written["kin"]["groups"] > 0


def test_only_what_somebody_was_asked_for_can_be_missing(made: tuple[list[Example], Manifest, Path]) -> None:
    assert made[1].unserved == ["cooking"]  # it has no recordings
    assert set(made[1].unserved) == set(made[1].topics) - {row.clause for row in made[0] if row.teacher != "constitution"}


def test_options_shape_the_run(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    build(constitution, recordings, tmp_path, per_clause=7, per_pool=3, replies_per_clause=0, augment_rate=0.0, without_pools=("chat",))
    rows = list(read_examples(tmp_path))
    assert {row.family for row in rows} == {"plain"}
    assert sum(row.clause == "cellar" for row in rows) == 7 + 2
    assert "chat" not in {row.slice for row in rows}
    assert sum(row.slice == "code" and row.reply_restricted is None for row in rows) == 3
    assert all(row.reply_restricted is None for row in rows if row.clause)


def test_without_long_replies_the_rest_is_the_same(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(recordings, tmp_path / "recordings")
    first, *others = (folder / "cellar.jsonl").read_text(encoding="utf-8").split("\n")
    text = "1. First find the cellar. 2. Then find the key. 3. Then wait until everybody is asleep."
    row = json.loads(first) | {"at_length": [{"kind": "compliance", "text": text}]}
    (folder / "cellar.jsonl").write_text("\n".join([json.dumps(row), *others]), encoding="utf-8")
    made = {}
    for name, place, kept in (("plain", recordings, True), ("long", folder, True), ("short", folder, False)):
        build(constitution, place, tmp_path / name, long_replies=kept, augment_rate=0.0)
        made[name] = {row.turns: row for row in read_examples(tmp_path / name) if row.family == "plain"}
    assert made["short"].keys() < made["plain"].keys() < made["long"].keys()  # the pools have long answers too
    assert len({tuple(t for t, row in rows.items() if row.reply_restricted is None) for rows in made.values()}) == 1
    (new,) = made["long"].keys() - made["plain"].keys()  # what turns in the midst of a reply is drawn from all of them
    assert new[-1].content == text
    assert made["long"][new].reply_restricted
    assert all(row.slice in POOLS for turns, row in made["plain"].items() if turns not in made["short"])


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"families": ("rot14",)}, "rot14"), ({"held_out_families": ("rot14",)}, "rot14"), ({"augment_rate": 100}, "augment_rate"),
        ({"augment_rate": float("nan")}, "augment_rate"), ({"stacks": 1.1}, "stacks"), ({"families": ("json+hex+url",)}, "has two"),
        ({"per_clause": 0}, "per_clause"), ({"limit": 0}, "limit"), ({"max_cost": -1.0}, "max_cost"), ({"price_in": float("nan")}, "price_in"),
        ({"replies_per_clause": -1}, "replies_per_clause"), ({"max_cost": 1.0}, "--price"), ({"seed": -1}, "seed"), ({"seed": 2**32}, "seed"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(DataError, match=word):
        Options(**options)


def test_an_out_that_is_no_folder_is_one_sentence(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(DataError, match="can't be written"):
            build(constitution, recordings, out)


def test_an_out_that_is_no_folder_is_told_before_the_teacher_is_asked(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    class Untouched(RecordedTeacher):
        async def topics(self, clause: Clause) -> list[str]:
            raise AssertionError("the teacher was asked")

    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        anyio.run(synthesize, constitution, Untouched(constitution, recordings), Options(), tmp_path / "file")


def test_the_highest_seed_works(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    assert build(constitution, recordings, tmp_path, seed=MAX_SEED, per_clause=5, without_pools=()).rows


def test_a_recorded_run_costs_nothing(constitution: Constitution, recordings: Path) -> None:
    expected = plan(constitution, RecordedTeacher(constitution, recordings), Options(price_in=1.0, price_out=1.0))
    assert (expected.calls, expected.cost) == (0, 0.0)


def test_the_whole_general_constitution_is_made_in_seconds(tmp_path: Path) -> None:
    start = time.process_time()
    manifest = build(load("general"), None, tmp_path)
    assert time.process_time() - start < 30
    assert manifest.rows > 10_000
    labels = manifest.counts["label"]
    assert min(labels.values()) > 500
