from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.constitution import Constitution
from charter.records import Turn, read_examples
from charter.synthesis.build import Options, synthesize
from charter.synthesis.items import ORDINARY, Item, digest, from_pool, written_for
from charter.synthesis.kin import LARGEST, STRICTER, THRESHOLD, kin
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.split import split, split_of
from charter.synthesis.twins import jaccard, numbered

TEXTS = st.lists(st.lists(st.sampled_from("abcde"), min_size=3, max_size=7).map(" ".join), min_size=1, max_size=30)


def benign(text: str) -> Item:
    return from_pool("chat", (Turn("user", text),), None, "me")


def restricted(text: str) -> Item:
    turns = (Turn("user", text),)
    return Item(turns, "cellar", "restricted", "restricted:cellar", digest(turns), "me")


def groups(items: Sequence[Item]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for item in items:
        found[item.kin].add(item.text)
    return found


@settings(max_examples=50)
@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_the_items_changes_no_group(texts: list[str], random: Random) -> None:
    items = [benign(text) for text in texts]
    shuffled = items[:]
    random.shuffle(shuffled)
    one, other = kin(items), kin(shuffled)
    assert {i.parent: i.kin for i in one[0]} == {i.parent: i.kin for i in other[0]}
    assert one[1] == other[1]
    assert [replace(i, kin="") for i in one[0]] == items


@settings(max_examples=50)
@given(TEXTS)
def test_twins_are_together_and_every_group_hangs_together(texts: list[str]) -> None:
    items, found = kin([benign(text) for text in texts])
    for a in items:
        for b in items:
            assert a.kin == b.kin or jaccard(numbered(a.text), numbered(b.text)) < THRESHOLD
    for head, members in groups(items).items():
        assert head == ORDINARY + min(benign(text).parent for text in members)
        reached, rest = set(), {next(iter(members))}
        while rest:
            reached |= rest
            rest = {b for b in members - reached for a in rest if jaccard(numbered(a), numbered(b)) >= THRESHOLD}
        assert reached == members
    sizes = [len(members) for members in groups(items).values()]
    assert (found.groups, found.items) == (sum(n > 1 for n in sizes), sum(n for n in sizes if n > 1))
    assert found.largest == max(sizes)


def test_labels_clauses_and_pools_make_no_difference_and_the_whole_conversation_counts() -> None:
    twin, other = restricted("How do I kill a person"), benign("How do I kill a process")
    talk = from_pool(
        "chat", (Turn("user", "Hello."), Turn("assistant", "Hello. What is it?"), Turn("user", "How do I kill a plant")), None, "me"
    )
    items, found = kin([twin, other, talk])
    assert items[0].kin == items[1].kin == min(twin.parent, other.parent)
    assert items[2].kin == ORDINARY + talk.parent
    assert (found.groups, found.items, found.largest, found.loosened) == (1, 2, 2, 0)


def test_a_chain_that_is_too_long_is_held_to_a_higher_similarity() -> None:
    words = [f"w{n}" for n in range(LARGEST + 11)]
    chain = [benign(" ".join(words[n : n + 6])) for n in range(LARGEST + 1)]  # neighbours: 3 of 5 runs shared
    tight = [benign(" ".join(words[n : n + 10])) for n in (0, 1)]  # 7 of 9
    assert THRESHOLD < 3 / 5 < STRICTER < 7 / 9
    short, _ = kin(chain[:LARGEST])
    assert len(groups(short)) == 1
    long, found = kin([*chain, *tight])
    assert found.loosened == 1
    assert long[-1].kin == long[-2].kin
    assert found.largest == 2


def test_nothing_has_no_kin() -> None:
    assert kin([])[1].largest == 0


@given(st.integers(0, 400))
def test_a_planted_twin_across_the_line_shares_the_split_and_so_do_its_disguises(n: int) -> None:
    pair, _ = kin(
        [
            benign(f"Where does number {n} keep the old key of the cellar"),
            restricted(f"Where does number {n} keep the old key of the house"),
        ]
    )
    copies = [item.with_prompt(item.prompt.upper(), "casing") for item in pair]
    assert len({split_of(item.group) for item in (*pair, *copies)}) == 1
    assert len({row.split for row in split([*pair, *copies], 0, {}, ())}) == 1


def test_without_kin_such_twins_would_part() -> None:
    pairs = [(benign(f"Where is the old key of the cellar {n}"), restricted(f"Where is the old key of the house {n}")) for n in range(50)]
    assert any(split_of(a.group) != split_of(b.group) for a, b in pairs)


def test_no_twins_in_different_splits_reach_the_rows(constitution: Constitution, tmp_path: Path) -> None:
    """From end to end, with planted leaks, and a comparison of all pairs."""
    rng = Random(0)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("ali", "ero", "unta")]

    class Planted(RecordedTeacher):
        """Each text of a clause has a twin under the counterpart, a word apart."""

        async def prompts(self, clause, topics, n):  # type: ignore[no-untyped-def]
            outcome = await super().prompts(clause, topics, n)
            last = {"cellar": "now", "wine": "later"}.get(clause.id, "ever")
            texts = [" ".join(Random(k).sample(words, 7)) for k in range(60)]
            outcome.kept += [written_for(clause, (Turn("user", f"{text} {last}"),), "recorded:authored") for text in texts]
            return outcome

    anyio.run(synthesize, constitution, Planted(constitution, tmp_path), Options(augment_rate=0.5), tmp_path / "out")
    rows = list(read_examples(tmp_path / "out"))
    plain = [row for row in rows if row.family == "plain" and row.reply_restricted is None and row.clause]
    assert sum(row.clause == "cellar" for row in plain) >= 60
    sets = [numbered("\n".join(t.content for t in row.turns)) for row in plain]
    close = 0
    for i, a in enumerate(sets):
        for j in range(i):
            if jaccard(a, sets[j]) >= THRESHOLD:
                close += 1
                assert plain[i].split == plain[j].split
    assert close >= 60
    places = {row.parent: row.split for row in plain}
    assert all(row.split == places[row.parent] for row in rows if row.parent in places)
    pool = rng.sample([row for row in rows if not row.clause and row.family == "plain" and row.reply_restricted is None], 300)
    sets = [numbered("\n".join(t.content for t in row.turns)) for row in pool]
    assert all(pool[i].split == pool[j].split for i in range(300) for j in range(i) if jaccard(sets[i], sets[j]) >= THRESHOLD)
