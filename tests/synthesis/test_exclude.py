from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.constitution import Constitution, load, shipped
from charter.errors import DataError
from charter.records import Turn, read_examples
from charter.synthesis.build import Options, synthesize
from charter.synthesis.exclude import REASON, SHORTEST, Excluded, exclude
from charter.synthesis.items import Item, from_pool
from charter.synthesis.pools import pools
from charter.synthesis.recorded import RecordedTeacher

LONG = "please tell me how the old clock in the tower of the town hall was built and who has kept it going since then"
BENCHMARKS = Path(__file__).parents[3] / "shared" / "benchmarks"


def item(*texts: str, answer: str | None = None) -> Item:
    turns = tuple(Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts))
    return from_pool("chat", turns, answer, "me")


def folder(path: Path, *rows: object, name: str = "set.jsonl") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.sampled_from(["", " ", "\n\n", "?!", ' "', "..."]))
def test_case_spaces_and_punctuation_around_a_text_hide_nothing(text: str, around: str) -> None:
    excluded = Excluded(iter([text]))
    assert excluded.holds(f"{around}{text}{around}") == excluded.holds(text) == bool(len(excluded))
    spaced = Excluded(iter(["The  Old\tclock?"]))
    assert spaced.holds("the old CLOCK")
    assert spaced.holds("ｔｈｅ old clock")


@given(st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=30), st.data())
def test_a_text_is_refused_only_if_it_is_the_same_or_shares_four_fifths_of_its_runs(words: list[str], data: st.DataObject) -> None:
    from charter.synthesis.twins import jaccard, numbered

    other = words[:]
    other[data.draw(st.integers(0, len(words) - 1))] = "z"
    a, b = " ".join(words), " ".join(other)
    near = jaccard(numbered(a), numbered(b)) >= 0.8 and min(len(numbered(a)), len(numbered(b))) >= SHORTEST
    assert Excluded(iter([a])).holds(b) == near


def test_a_planted_text_is_refused_as_prompt_as_earlier_turn_and_as_reply() -> None:
    excluded = Excluded(iter([LONG]))
    planted = [item(LONG), item(f"{LONG} exactly"), item(LONG, "Of course.", "Go on."), item("Clock?", answer=LONG)]
    clean = [item("What is a clock?"), item("Clock?", LONG, "Go on."), item(LONG.replace("clock", "bell").replace("town", "city"))]
    outcome = exclude([*planted, *clean], excluded)
    assert outcome.kept == clean
    assert outcome.dropped == {("chat", REASON): 4}


def test_short_prompts_are_refused_where_they_are_the_same_and_short_replies_never(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "Knives?"}, {"role": "assistant", "content": "No."}]}]
    excluded = Excluded.read([folder(tmp_path, *rows)])
    assert excluded.refuses(item("knives"))
    assert not excluded.refuses(item("No.", answer="Knives?"))


def test_all_shapes_of_rows_are_read_and_system_turns_are_not(tmp_path: Path) -> None:
    turns = [("system", "Be a clock."), ("user", "one one"), ("assistant", LONG), ("user", "two two")]
    folder(tmp_path / "a", {"messages": [{"role": r, "content": c} for r, c in turns]}, {"prompt": "three three", "label": 1})
    (tmp_path / "b").mkdir()
    with gzip.open(tmp_path / "b" / "more.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": "four\u2028four"}) + "\n\n")
    excluded = Excluded.read([tmp_path / "a", tmp_path / "b"])
    assert [excluded.holds(t) for t in ("one one", LONG, "two two", "three three", "four four", "Be a clock.")] == [True] * 5 + [False]
    assert len(excluded) == 5


@pytest.mark.parametrize("row", [{}, {"goal": "x"}, {"prompt": 3}, {"messages": []}, {"messages": [{"role": "user"}]}])
def test_a_row_without_a_text_is_named(tmp_path: Path, row: object) -> None:
    with pytest.raises(DataError, match=r"set\.jsonl:2"):
        Excluded.read([folder(tmp_path, {"prompt": "fine"}, row)])


def test_a_folder_that_excludes_nothing_is_a_mistake(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", folder(tmp_path / "empty")):
        with pytest.raises(DataError, match="no row|no such folder"):
            Excluded.read([path])


def test_only_hashes_stay_in_memory() -> None:
    def reachable(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list | set | tuple):
            for part in (*value, *value.values()) if isinstance(value, dict) else value:
                yield from reachable(part)
        elif hasattr(value, "__dict__"):
            yield from reachable(list(vars(value).values()))

    assert list(reachable(Excluded(iter([LONG])))) == []


def test_what_is_excluded_never_reaches_the_rows_and_costs_no_opinion(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    class Asked(RecordedTeacher):
        def __init__(self) -> None:
            super().__init__(constitution, recordings)
            self.asked: list[str] = []

        async def odds(self, item: Item, clause: object, counterpart: object) -> float:
            self.asked.append(item.prompt)
            return 1.0

    teacher = Asked()
    items = anyio.run(teacher.prompts, constitution["cellar"], [], None).kept
    leaks = [items[7].prompt, items[10].turns[0].content]  # the second opens twenty conversations: a greeting is nobody's
    excluded = Excluded(iter(leaks))
    manifest = anyio.run(lambda: synthesize(constitution, teacher, Options(), tmp_path, excluded=excluded))
    dropped = next(stage for stage in manifest.stages if stage.name == "exclude").dropped[REASON]
    assert dropped == 1
    assert manifest.excluded == 2
    assert items[7].prompt not in teacher.asked
    assert items[8].prompt in teacher.asked
    assert items[10].prompt in teacher.asked
    for row in read_examples(tmp_path):
        last = [turn.content for turn in row.turns if turn.role == "user"][-1]
        assert not excluded.holds(last)


def test_an_earlier_turn_of_six_words_is_refused_and_a_greeting_is_not() -> None:
    excluded = Excluded(iter(["Good evening.", "Where is the old key of the cellar?"]))

    def talk(opening: str) -> Item:
        turns = (Turn("user", opening), Turn("assistant", "Yes?"), Turn("user", "Tell me more about it."))
        return from_pool("chat", turns, None, "me")

    assert not excluded.refuses(talk("Good evening."))
    assert excluded.refuses(talk("Where is the old key of the cellar?"))


def test_no_recorded_prompt_is_a_benchmarks() -> None:
    if not BENCHMARKS.is_dir():
        pytest.skip(f"the public benchmarks are not at {BENCHMARKS}")
    excluded = Excluded.read([BENCHMARKS])
    assert len(excluded) > 1000

    async def recorded(constitution: Constitution) -> list[Item]:
        teacher = RecordedTeacher(constitution)
        items = [item for clause in constitution.clauses for item in (await teacher.prompts(clause, [], None)).kept]
        return [replace(item, replies=await teacher.replies(item)) for item in items]

    found: Counter[str] = Counter()
    for name in shipped():
        constitution = load(name)
        examples = [from_pool(c.id, (Turn("user", text),), None, "me") for c in constitution.clauses for text in c.examples]
        for one in [*examples, *anyio.run(recorded, constitution)]:
            found[f"{name}: {one.clause or one.slice}: {one.prompt}"] += excluded.refuses(one)
    for one in pools(load("general"), ()):
        found[f"pool {one.slice}: {one.prompt}"] += excluded.refuses(one)
    assert sorted(place for place, n in found.items() if n) == []
