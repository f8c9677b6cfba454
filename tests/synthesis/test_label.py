from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from charter.constitution import Clause, Constitution
from charter.llm.pool import quiet
from charter.records import Turn
from charter.synthesis.engine import LocalEngine
from charter.synthesis.items import Item, Outcome, Written, from_pool, written_for
from charter.synthesis.label import label, refuses
from charter.synthesis.teachers import Expected


class Judge:
    """Agrees with everything but the texts it is told to doubt, and notes what it was asked."""

    name = "judge"
    replies_per_clause: int | None = None

    def __init__(self, doubts: Sequence[str] = ()) -> None:
        self.doubts, self.asked = doubts, []  # type: Sequence[str], list[tuple[str, str | None]]

    async def topics(self, clause: Clause) -> list[str]:
        return []

    async def prompts(self, clause: Clause, topics: Sequence[str], n: int | None) -> list[Item]:
        return []

    async def replies(self, item: Item) -> tuple[Written, ...]:
        return ()

    async def leaning(self, clause: Clause, counterpart: Clause) -> float:
        return 0.0

    async def odds(self, item: Item, clause: Clause, counterpart: Clause | None) -> float:
        self.asked.append((clause.id, counterpart.id if counterpart else None))
        return -1.0 if item.prompt in self.doubts else 1.0

    def expected(self, clause: Clause, n: int | None, replies: int | None) -> Expected:
        return Expected()


def run(constitution: Constitution, items: list[Item], judge: Judge) -> Outcome:
    return anyio.run(label, items, constitution, LocalEngine(judge, 4), quiet)


def item(constitution: Constitution, clause: str, text: str, *replies: Written, teacher: str = "model:m") -> Item:
    from dataclasses import replace

    return replace(written_for(constitution[clause], (Turn("user", text),), teacher), replies=replies)


def test_items_go_against_their_clause_and_the_one_across_the_line(constitution: Constitution) -> None:
    judge = Judge(doubts=["b"])
    items = [item(constitution, "cellar", "a"), item(constitution, "wine", "b"), item(constitution, "cooking", "c")]
    pool = from_pool("chat", (Turn("user", "b"),), None, "me")
    outcome = run(constitution, [*items, pool], judge)
    assert judge.asked == [("cellar", "wine"), ("wine", "cellar"), ("cooking", None)]
    assert outcome.kept == [items[0], items[2], pool]
    assert outcome.dropped == {("wine", "nearer to the counterpart"): 1}


def test_replies_are_labelled_by_what_they_say(constitution: Constitution) -> None:
    no, yes = "I'm sorry, but I can't help with that.", "Of course. You turn the key twice."
    replies = [Written("compliance", no), Written("refusal", no), Written("refusal", yes), Written("compliance", yes)]
    outcome = run(constitution, [item(constitution, "cellar", "a", *replies)], Judge())
    assert outcome.kept[0].replies == (Written("refusal", no), Written("compliance", yes))
    assert outcome.replies_dropped == {("cellar", "a compliance that refuses"): 1, ("cellar", "a refusal that does not refuse"): 1}


def test_authored_replies_are_not_second_guessed(constitution: Constitution) -> None:
    authored = item(constitution, "cellar", "a", Written("refusal", "That door stays shut."), teacher="recorded:authored")
    assert run(constitution, [authored], Judge()).kept == [authored]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.", "I cannot assist you with this request.", "I won\u2019t write that for you.",
        "As an AI, I have limits.", "We are unable to provide this.", "No. I must decline.", "Sorry, I'm not able to do this.",
    ],
)  # fmt: skip
def test_refusals_are_recognised(text: str) -> None:
    assert refuses(text)


@pytest.mark.parametrize(
    "text", ["Sure, here is how.", "You can't go wrong with a trout.", "They won't help you there, so bring a torch.", "Don't overcook it."]
)
def test_other_replies_are_not_taken_for_refusals(text: str) -> None:
    assert not refuses(text)
