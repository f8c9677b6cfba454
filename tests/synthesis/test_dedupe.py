from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from charter.records import Turn
from charter.synthesis.dedupe import THRESHOLD, dedupe
from charter.synthesis.items import TURNING, Item, Written, digest, from_pool
from charter.synthesis.twins import shingles

LONG = "please tell me how the old clock in the tower of the town hall was built and who has kept it going since then"


def benign(text: str, answer: str | None = None) -> Item:
    return from_pool("chat", (Turn("user", text),), answer, "me")


def restricted(text: str) -> Item:
    turns = (Turn("user", text),)
    return Item(turns, "cellar", "restricted", "restricted:cellar", digest(turns), "me")


def near(text: str) -> str:
    return text + " exactly"


def test_of_exact_and_near_duplicates_one_stays() -> None:
    items = [benign(LONG), benign(f"  {LONG.upper()}"), benign(near(LONG)), benign("Something else.")]
    outcome = dedupe(items, seed=0)
    assert outcome.kept == [items[0], items[3]]
    assert outcome.dropped == {("chat", "exact duplicate"): 1, ("chat", "near duplicate"): 1}


def test_the_one_with_replies_stays() -> None:
    items = [benign(LONG), benign(near(LONG), answer="By hand.")]
    assert dedupe(items, seed=0).kept == [items[1]]


def test_near_misses_across_the_line_both_stay() -> None:
    items = [benign(LONG), restricted(near(LONG))]
    assert dedupe(items, seed=0).kept == items


def test_the_same_text_on_both_sides_falls_altogether() -> None:
    outcome = dedupe([benign(LONG), restricted(LONG)], seed=0)
    assert outcome.kept == []
    assert sum(outcome.dropped.values()) == 2


def test_copies_fall_with_their_plain_item_and_are_never_compared_themselves() -> None:
    first, twin, other = benign(LONG), benign(near(LONG)), benign("Something else.")
    frame = "a long frame that is the same for all of them and by far outweighs what is put inside: "
    copies = [item.with_prompt(frame + item.prompt[:5], "roleplay:villain-play") for item in (first, twin, other)]
    turn = replace(twin, family=TURNING, replies=(Written("compliance", "x"),))
    outcome = dedupe([first, twin, other, *copies, turn], seed=0)
    assert outcome.kept == [first, other, copies[0], copies[2]]
    assert outcome.dropped["chat", "copy of a duplicate"] == 2


def test_a_disguise_that_changes_nothing_falls() -> None:
    item = benign("\u65e5\u672c\u8a9e")
    assert dedupe([item, item.with_prompt(item.prompt, "casing")], seed=0).kept == [item]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=6, max_size=14).map(" ".join), min_size=2, max_size=40), st.integers(0, 3))
def test_what_stays_has_no_twin_and_what_falls_has_one(texts: list[str], seed: int) -> None:
    items = [benign(text) for text in texts]
    kept = [shingles(item.text) for item in dedupe(items, seed).kept]
    similar = [len(a & b) / len(a | b) for i, a in enumerate(kept) for b in kept[:i]]
    assert all(value < 1 for value in similar)
    assert sum(value >= THRESHOLD for value in similar) <= 1  # the index finds candidates by chance, nearly always
    for item in items:
        own = shingles(item.text)
        assert any(len(own & other) / len(own | other) >= THRESHOLD for other in kept)


def test_it_is_the_same_in_every_process() -> None:
    code = (
        "from charter.records import Turn; from charter.synthesis.dedupe import dedupe; from charter.synthesis.items import from_pool;"
        "import random; r = random.Random(0);"
        "texts = [' '.join(r.choice('abcd') for _ in range(9)) for _ in range(300)];"
        "print([i.text for i in dedupe([from_pool('chat', (Turn('user', t),), None, 'me') for t in texts], 0).kept])"
    )
    assert len({subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}) == 1
