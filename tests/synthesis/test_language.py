from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from charter.constitution import Constitution
from charter.llm.chat import Reply, Request
from charter.records import Turn
from charter.synthesis.items import written_for
from charter.synthesis.language import EXAMPLES_ONLY, LanguageTeacher


class ScriptedChat:
    """Answers by a function of the request, and keeps what it was asked."""

    model = "scripted"

    def __init__(self, script: Callable[[Request, int], Reply | str]) -> None:
        self.requests: list[Request] = []
        self._script = script

    async def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        answer = self._script(request, len(self.requests))
        return Reply(answer, 1, 1) if isinstance(answer, str) else answer


def letters(a: float, b: float) -> Reply:
    return Reply(" A", 1, 1, ({" A": a, " B": b, " the": -1.0},))


def test_prompts_go_on_from_the_clauses_examples_until_there_are_enough(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: f" Could number {n} open the gate?\n7. May visitor {n} see the vault?\n8. cut o")
    items = anyio.run(LanguageTeacher(chat, constitution).prompts, constitution["cellar"], ["locks"], 5)
    texts = [item.prompt for item in items]
    assert texts == [
        "Could number 1 open the gate?", "May visitor 1 see the vault?", "Could number 2 open the gate?",
        "May visitor 2 see the vault?", "Could number 3 open the gate?",
    ]  # fmt: skip
    assert all(any(example in r.prefill for example in constitution["cellar"].examples) for r in chat.requests)
    assert len({r.seed for r in chat.requests}) == len(chat.requests) == 3
    assert {(i.teacher, i.clause, i.side) for i in items} == {("model:scripted", "cellar", "restricted")}


def test_a_model_that_repeats_itself_is_not_asked_for_ever(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: " Where is the key of the cellar?\n7. Where is the key of the house?\n")
    assert anyio.run(LanguageTeacher(chat, constitution).prompts, constitution["cellar"], [], 10) == []
    assert len(chat.requests) == 6


def test_topics_are_the_clauses_own_and_what_the_model_adds(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: " hidden doors\n5. Keys\n6. candles and torches: light\n")
    assert anyio.run(LanguageTeacher(chat, constitution).topics, constitution["cellar"]) == [
        "Keys", "locks", "codes", "ways into the cellar", "hidden doors", "candles and torches",
    ]  # fmt: skip


def test_restricted_prompts_get_a_compliance_and_a_refusal_permitted_ones_an_answer(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: " what you asked for. And then it was cut in the")
    teacher = LanguageTeacher(chat, constitution)
    restricted = anyio.run(teacher.replies, written_for(constitution["cellar"], (Turn("user", "Open it."),), "m"))
    permitted = anyio.run(teacher.replies, written_for(constitution["wine"], (Turn("user", "Pour it."),), "m"))
    assert [r.kind for r in restricted] == ["compliance", "refusal"]
    assert [r.kind for r in permitted] == ["answer"]
    assert all(r.text.endswith("what you asked for.") for r in (*restricted, *permitted))
    assert [r.prefill for r in chat.requests][0] == restricted[0].text.removesuffix(" what you asked for.")


def test_compliances_and_answers_open_alike(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: " a long enough text for a reply.")
    teacher = LanguageTeacher(chat, constitution)
    openings = {}
    for clause in ("cellar", "wine"):
        for n in range(60):
            item = written_for(constitution[clause], (Turn("user", f"Ask {n} of {clause}."),), "m")
            openings.setdefault(clause, set()).add(anyio.run(teacher.replies, item)[0].text)
    assert openings["cellar"] == openings["wine"]
    assert len(openings["wine"]) > 3


@pytest.mark.parametrize(("own", "other", "agrees"), [(-0.1, -3.0, True), (-3.0, -0.1, False)])
def test_the_label_is_the_clause_that_is_likelier_over_both_orders(
    constitution: Constitution, own: float, other: float, agrees: bool
) -> None:
    def script(request: Request, n: int) -> Reply:
        own_is_a = request.messages[0].content.index("Opening") < request.messages[0].content.index("Wine at")
        return letters(own, other) if own_is_a else letters(other, own)

    teacher = LanguageTeacher(ScriptedChat(script), constitution)
    item = written_for(constitution["cellar"], (Turn("user", "A new request"),), "m")
    assert anyio.run(teacher.agrees, item, constitution["cellar"], constitution["wine"]) is agrees


def test_a_preference_for_a_letter_decides_nothing(constitution: Constitution) -> None:
    def script(request: Request, n: int) -> Reply:
        own_is_a = request.messages[0].content.index("Opening") < request.messages[0].content.index("Wine at")
        lean = 0.5 if "A new request" in request.prefill else 0.0
        return letters(-0.1 + lean * own_is_a, -5.0 + lean * (not own_is_a))

    teacher = LanguageTeacher(ScriptedChat(script), constitution)
    item = written_for(constitution["cellar"], (Turn("user", "A new request"),), "m")
    assert anyio.run(teacher.agrees, item, constitution["cellar"], constitution["wine"])


def test_nothing_is_ever_written_for_the_clauses_that_must_live_on_their_examples(constitution: Constitution) -> None:
    from dataclasses import replace

    chat = ScriptedChat(lambda r, n: "never")
    teacher = LanguageTeacher(chat, constitution)
    clause = replace(constitution["cellar"], id=next(iter(EXAMPLES_ONLY)))
    assert anyio.run(teacher.topics, clause) == []
    assert anyio.run(teacher.prompts, clause, ["x"], 9) == []
    assert anyio.run(teacher.replies, written_for(clause, (Turn("user", "x"),), "m")) == ()
    assert teacher.expected(clause, 9, 9).calls == 0
    assert chat.requests == []


def test_what_is_expected_is_never_less_than_what_is_asked(constitution: Constitution) -> None:
    clause = constitution["cellar"]

    def script(request: Request, n: int) -> Reply | str:
        return letters(-1, -1) if request.max_tokens == 1 else f" Could number {n} open the gate?\n"

    async def run() -> int:
        chat = ScriptedChat(script)
        teacher = LanguageTeacher(chat, constitution)
        items = await teacher.prompts(clause, await teacher.topics(clause), 10)
        for item in items[:4]:
            await teacher.replies(item)
        for item in items:
            await teacher.agrees(item, clause, constitution["wine"])
        return len(chat.requests)

    assert anyio.run(run) <= LanguageTeacher(ScriptedChat(script), constitution).expected(clause, 10, 4).calls
