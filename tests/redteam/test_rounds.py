"""The loop on word guards that learn to decode: what it writes, what it never touches, and how it goes on after a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from charter.constitution import Constitution
from charter.errors import DataError, NoData
from charter.records import Example, read_examples, write_examples
from charter.redteam import ledger as book
from charter.redteam.arsenal import Arsenal
from charter.redteam.attacks import Effort
from charter.redteam.ledger import Ledger, Round, path_of, rows_of
from charter.redteam.rounds import Options, run
from charter.synthesis.families import held

EFFORT = Effort(parents=40, block=20)
NewSchool = Callable[..., Any]


def campaign(data: Path, constitution: Constitution, school: Any, arsenal: Arsenal, rounds: int = 2, **more: Any) -> Ledger:
    options = Options(rounds, **{"effort": EFFORT, **{k: more.pop(k) for k in ("seed", "trained_with", "effort") if k in more}})
    return run(data, constitution, school, arsenal, options, **more)


def rows(data: Path, number: int) -> list[Example]:
    return list(read_examples(rows_of(data, number)))


@pytest.fixture
def stubborn(new_school: NewSchool) -> Any:
    """Never learns, so that attacks get through in every round."""
    return new_school(learns=False)


def test_both_labels_have_the_same_families_in_every_round(data: Path, constitution: Constitution, stubborn: Any, arsenal: Arsenal) -> None:
    found = campaign(data, constitution, stubborn, arsenal)
    for number in (1, 2):
        counts = [Counter(e.family for e in rows(data, number) if e.prompt_restricted == label) for label in (True, False)]
        assert counts[0] == counts[1]
        attack = found.rounds[number].attack
        assert attack is not None
        assert sum(counts[0].values()) == attack.kept > 10
        assert attack.added == 2 * attack.kept <= 2 * attack.parents
        assert attack.kept <= attack.got_through <= attack.tried


def test_rows_come_from_the_train_split_and_no_family_is_held_out(
    data: Path, constitution: Constitution, stubborn: Any, arsenal: Arsenal, examples: list[Example]
) -> None:
    campaign(data, constitution, stubborn, arsenal)
    train = {e.id: e for e in examples if e.split == "train" and e.family == "plain"}
    for number in (1, 2):
        for row in rows(data, number):
            parent = train[row.parent]
            assert (row.split, row.teacher, row.reply_restricted) == ("train", f"redteam:{number}", None)
            assert (row.clause, row.side, row.slice, row.clause_hash) == (parent.clause, parent.side, parent.slice, parent.clause_hash)
            assert not held(row.family, arsenal.held_out)
            assert arsenal.means_the_same(parent, row.family, row.turns)


def test_no_guard_is_shown_a_test_prompt_but_for_the_held_out_set_which_is_the_same_in_all_rounds(
    data: Path, constitution: Constitution, stubborn: Any, arsenal: Arsenal, examples: list[Example]
) -> None:
    found = campaign(data, constitution, stubborn, arsenal)
    n = found.rounds[0].guard.heldout.all.restricted + found.rounds[0].guard.heldout.all.harmless  # type: ignore[union-attr]
    sets = [[e.id for e in guard.seen[:n]] for guard in stubborn.guards]
    assert sets[0] == sets[1] == sets[2]
    others = {e.id for e in examples if e.split != "train"}
    assert not others & {e.id for guard in stubborn.guards for e in guard.seen[n:]}
    assert {e.round: len(e.guard.scores) for e in found.rounds if e.guard} == {0: n, 1: n, 2: n}


def test_no_id_comes_twice(data: Path, constitution: Constitution, stubborn: Any, arsenal: Arsenal, examples: list[Example]) -> None:
    campaign(data, constitution, stubborn, arsenal, 3)
    ids = [e.id for e in examples] + [e.id for number in (1, 2, 3) for e in rows(data, number)]
    assert len(ids) == len(set(ids))


def test_what_was_learned_from_attacks_shows_on_the_held_out_families(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal
) -> None:
    school = new_school()
    found = campaign(data, constitution, school, arsenal)
    first, after = (found.rounds[n].guard for n in (0, 1))
    assert first is not None
    assert after is not None
    assert first.heldout.families["binary"].recall.value == 0
    assert first.heldout.families["fiction:novel"].recall.value == 1
    assert after.heldout.families["binary"].recall.value == 1
    assert after.heldout.rise is not None
    assert after.heldout.rise.low is not None
    assert after.heldout.rise.low > 0
    assert first.heldout.rise is None
    assert found.rounds[2].attack is not None
    assert found.rounds[2].attack.kept < found.rounds[1].attack.kept  # type: ignore[union-attr]
    assert school.trainings == [["examples.parquet", *(f"redteam-{n}.parquet" for n in range(1, k + 1))] for k in range(3)]


def test_a_round_in_which_nothing_gets_through_adds_nothing(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal
) -> None:
    found = campaign(data, constitution, new_school(), replace(arsenal, names=("json", "roleplay:villain-play")), 1)
    assert found.rounds[1].attack is not None
    assert found.rounds[1].attack.added == 0
    assert rows(data, 1) == []


def files(data: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(data.glob("*.parquet"))}


def timeless(ledger: Ledger) -> list[dict[str, Any]]:
    """The rounds without their seconds."""
    return [entry.model_dump(exclude={"attack": {"seconds"}, "guard": {"seconds"}}) for entry in ledger.rounds]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal, examples: list[Example]
) -> None:
    one = campaign(data, constitution, new_school(learns=False), arsenal)
    before = files(data)
    again = data.parent / "again"
    write_examples(again / "examples.parquet", examples)
    assert timeless(campaign(again, constitution, new_school(learns=False), arsenal)) == timeless(one)
    assert files(again) == before
    campaign(again, constitution, new_school(learns=False), arsenal, seed=1)
    assert files(again)["redteam-1.parquet"] != before["redteam-1.parquet"]


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_killed_run_goes_on_without_a_second_attack_and_ends_in_the_same_place(
    fail_at: int, data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal, examples: list[Example]
) -> None:
    undisturbed = data.parent / "undisturbed"
    write_examples(undisturbed / "examples.parquet", examples)
    wanted = campaign(undisturbed, constitution, new_school(learns=False), arsenal)
    school = new_school(learns=False, fail_at=fail_at)
    with pytest.raises(KeyboardInterrupt):
        campaign(data, constitution, school, arsenal)
    told = [f"attacks, round {n}" for n in range(1, fail_at)]
    seen: list[str] = []
    found = campaign(data, constitution, school, arsenal, reopen=opener(school), progress=lambda name, *_: seen.append(name))
    assert timeless(found) == timeless(wanted)
    assert files(data) == files(undisturbed)
    assert not set(told) & set(seen), "rounds that were attacked before the kill are not attacked again"
    assert len(school.trainings) == 3 + 1, "only the training that was interrupted is repeated"


def opener(school: Any) -> Callable[[str], Any]:
    """Gives the guard that was trained last, as a guard folder would."""
    return lambda digest: school.guards[-1] if school.guards and school.guards[-1].hash == digest else None


def test_a_finished_run_repeated_attacks_and_trains_nothing(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal
) -> None:
    school = new_school(learns=False)
    first = campaign(data, constitution, school, arsenal)
    before, said = files(data), []
    again = campaign(data, constitution, school, arsenal, reopen=opener(school), said=said.append)
    assert again == first == book.read(data)
    assert files(data) == before
    assert len(school.trainings) == 3
    assert [entry.round for entry in said] == [0, 1, 2]


def test_where_the_last_guard_is_gone_only_that_one_is_trained_again(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal
) -> None:
    school = new_school(learns=False)
    campaign(data, constitution, school, arsenal)
    campaign(data, constitution, school, arsenal)
    assert school.trainings[3:] == [["examples.parquet", "redteam-1.parquet", "redteam-2.parquet"]]


def test_rows_made_against_another_guard_are_made_anew(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal
) -> None:
    campaign(data, constitution, new_school(learns=False), arsenal)
    old = book.read(data)
    stale = [
        entry.model_copy(update={"attack": entry.attack and entry.attack.model_copy(update={"against": "other"})}) for entry in old.rounds
    ]
    book.write(data, old.model_copy(update={"rounds": stale}))
    seen: list[str] = []
    campaign(data, constitution, new_school(learns=False), arsenal, progress=lambda name, *_: seen.append(name))
    assert {"attacks, round 1", "attacks, round 2"} <= set(seen)


@pytest.mark.parametrize("change", ["rows", "examples", "effort", "trainer", "deleted"])
def test_a_changed_file_or_option_is_noticed(
    change: str, data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal, examples: list[Example]
) -> None:
    campaign(data, constitution, new_school(learns=False), arsenal, 1)
    more: dict[str, Any] = {}
    if change == "rows":
        write_examples(rows_of(data, 1), rows(data, 1)[:2])
    elif change == "examples":
        write_examples(data / "examples.parquet", [e for e in examples if e.id != next(x.id for x in examples if x.split == "train")])
    elif change == "effort":
        more["effort"] = replace(EFFORT, tries=2)
    elif change == "trainer":
        more["trained_with"] = "another budget"
    else:
        rows_of(data, 1).unlink()
    school, seen = new_school(learns=False), []
    campaign(data, constitution, school, arsenal, 1, progress=lambda name, *_: seen.append(name), **more)
    assert ("attacks, round 1" in seen) == (change != "trainer"), "the same guard under another option is attacked no second time"
    assert school.trainings[0] == ["examples.parquet"]
    assert len(rows(data, 1)) > 2


def test_more_rounds_go_on_from_those_that_are_there_and_fewer_set_the_rest_aside(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal
) -> None:
    school = new_school(learns=False)
    campaign(data, constitution, school, arsenal, 2)
    before = files(data)
    fewer = campaign(data, constitution, school, arsenal, 1)
    assert [entry.round for entry in fewer.rounds] == [0, 1]
    assert set(files(data)) == {"examples.parquet", "redteam-1.parquet"}
    seen: list[str] = []
    more = campaign(data, constitution, school, arsenal, 3, progress=lambda name, *_: seen.append(name))
    assert {name for name in seen if name.startswith("attacks")} == {"attacks, round 3"}
    assert {name: value for name, value in files(data).items() if name in before} == before
    assert [entry.round for entry in more.rounds] == [0, 1, 2, 3]
    assert more.rounds[2].guard is not None


def test_a_family_can_not_be_held_out_and_used(data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal) -> None:
    with pytest.raises(DataError, match="'hex' is both held out and used"):
        campaign(data, constitution, new_school(), replace(arsenal, held_out=("hex",)))


def test_a_folder_without_test_prompts_is_refused_before_any_training(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal, examples: list[Example]
) -> None:
    write_examples(data / "examples.parquet", [e for e in examples if e.split != "test"])
    school = new_school()
    with pytest.raises(NoData, match="test split"):
        campaign(data, constitution, school, arsenal)
    assert school.trainings == []
    assert not path_of(data).exists()


def test_a_guard_that_turns_out_another_is_measured_again(
    data: Path, constitution: Constitution, new_school: NewSchool, arsenal: Arsenal
) -> None:
    old = campaign(data, constitution, new_school(learns=False), arsenal, 1)
    doubtful = [
        Round(round=e.round, attack=e.attack, guard=e.guard and e.guard.model_copy(update={"hash": "elsewhere"})) for e in old.rounds
    ]
    book.write(data, old.model_copy(update={"rounds": doubtful}))
    school = new_school(learns=False)
    found = campaign(data, constitution, school, arsenal, 1)
    assert [e.guard.hash for e in found.rounds if e.guard] == [guard.hash for guard in school.guards[:1]] + [school.guards[-1].hash]
    assert timeless(found) == timeless(old)
