from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
from hypothesis import assume, given
from hypothesis import strategies as st

from charter.constitution import Constitution
from charter.llm.chat import Reply, Request
from charter.llm.embedded import MODEL
from charter.records import Turn
from charter.synthesis.build import Options
from charter.synthesis.families import DRAWN, FAMILIES, TRANSLATED
from charter.synthesis.items import Outcome, written_for
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
    chat = ScriptedChat(lambda r, n: f" Could number {n // 2} open the gate?")
    items = anyio.run(LanguageTeacher(chat, constitution).prompts, constitution["cellar"], ["locks"], 3).kept
    assert [item.prompt for item in items] == [f"Could number {n} open the gate?" for n in range(3)]
    assert len({r.seed for r in chat.requests}) == len(chat.requests) == 4
    for asked in chat.requests:
        assert all(example in asked.prefill for example in constitution["cellar"].examples)
        assert asked.prefill.endswith("\n\nSubject: Opening the wine cellar: locks\nRequest:")
        assert "trout" not in asked.prefill
    assert {(i.teacher, i.clause, i.side) for i in items} == {("model:scripted", "cellar", "restricted")}


def test_a_model_that_repeats_itself_or_its_examples_is_not_asked_for_ever(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: " Where is the key of the house?")
    assert anyio.run(LanguageTeacher(chat, constitution).prompts, constitution["cellar"], [], 5) == Outcome(
        [], Counter({("cellar", "repeated"): 10})
    )
    assert len(chat.requests) == 10


def test_topics_are_the_clauses_own_and_what_the_model_adds(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: " hidden doors\n5. Keys\n6. candles and torches: light\n")
    topics = anyio.run(LanguageTeacher(chat, constitution).topics, constitution["cellar"])
    assert topics == ["Keys", "locks", "codes", "ways into the cellar", "hidden doors", "candles and torches"]


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


def judge(constitution: Constitution, own: float, example_of_own: float, example_of_other: float, letter: float = 0.0) -> bool:
    """What the teacher thinks of a new request, given the log-odds that the model files texts under the request's clause."""

    def script(asked: Request, n: int) -> Reply:
        text = asked.prefill.split("Request: ")[-1].removesuffix("\nAnswer:")
        ends = {"A new request": own} | dict.fromkeys(constitution["cellar"].examples, example_of_own)
        odds = ends.get(text, example_of_other)
        own_is_a = asked.messages[0].content.index("Opening") < asked.messages[0].content.index("Wine at")
        return letters((odds if own_is_a else -odds) + letter, 0.0)

    teacher = LanguageTeacher(ScriptedChat(script), constitution)
    item = written_for(constitution["cellar"], (Turn("user", "A new request"),), "m")
    clauses = constitution["cellar"], constitution["wine"]
    return anyio.run(teacher.odds, item, *clauses) > anyio.run(teacher.leaning, *clauses)


@given(st.floats(-3, 3), st.floats(-2, 2), st.floats(-2, 2))
def test_the_label_is_the_clause_whose_examples_the_prompt_is_nearer_to(
    constitution: Constitution, own: float, lean: float, letter: float
) -> None:
    assume(abs(own - lean) > 1e-6)
    assert judge(constitution, own, lean + 1, lean - 1, letter) is (own > lean)


def test_an_example_is_never_judged_with_itself_among_the_shots(constitution: Constitution) -> None:
    chat = ScriptedChat(lambda r, n: letters(-1, -2))
    item = written_for(constitution["cellar"], (Turn("user", "A new request"),), "m")
    teacher, clauses = LanguageTeacher(chat, constitution), (constitution["cellar"], constitution["wine"])
    anyio.run(teacher.odds, item, *clauses)
    anyio.run(teacher.leaning, *clauses)
    for asked in chat.requests:
        text = asked.prefill.split("Request: ")[-1].removesuffix("\nAnswer:")
        assert asked.prefill.count(text) == 1
    assert len(chat.requests) == 2 * (1 + 2 + 2)


def test_nothing_is_ever_written_for_the_clauses_that_must_live_on_their_examples(constitution: Constitution) -> None:
    from dataclasses import replace

    chat = ScriptedChat(lambda r, n: "never")
    teacher = LanguageTeacher(chat, constitution)
    clause = replace(constitution["cellar"], id=next(iter(EXAMPLES_ONLY)))
    assert anyio.run(teacher.topics, clause) == []
    assert anyio.run(teacher.prompts, clause, ["x"], 9) == Outcome([])
    assert anyio.run(teacher.replies, written_for(clause, (Turn("user", "x"),), "m")) == ()
    assert teacher.expected(clause, 9, 9).calls == 0
    assert chat.requests == []


def test_what_is_expected_is_never_less_than_what_is_asked(constitution: Constitution) -> None:
    clause = constitution["cellar"]

    def script(request: Request, n: int) -> Reply | str:
        return letters(-1, -1) if request.max_tokens == 1 else f" Could number {n} open the gate?"

    async def run() -> int:
        chat = ScriptedChat(script)
        teacher = LanguageTeacher(chat, constitution)
        items = (await teacher.prompts(clause, await teacher.topics(clause), 10)).kept
        for item in items[:4]:
            await teacher.replies(item)
        await teacher.leaning(clause, constitution["wine"])
        for item in items:
            await teacher.odds(item, clause, constitution["wine"])
        return len(chat.requests)

    assert anyio.run(run) <= LanguageTeacher(ScriptedChat(script), constitution).expected(clause, 10, 4).calls


def test_a_text_is_rewritten_after_others_that_were_and_by_a_call_of_its_own(constitution: Constitution) -> None:
    answers = {"tea": " Wie koche ich Tee?\n\nText: more", "milk": "Text: milk\nRewritten: Milch, bitte.", "void": "  \n"}
    chat = ScriptedChat(lambda r, n: next(answer for word, answer in answers.items() if word in r.prefill.split("Text: ")[-1]))
    teacher, ask = LanguageTeacher(chat, constitution), FAMILIES["translation:de"].instruction
    for word, told in (("tea", "Wie koche ich Tee?"), ("milk", "Milch, bitte."), ("void", None)):
        assert anyio.run(teacher.rewrite, f"How do\n I like {word}?", ask) == told
    assert all(r.messages == (Turn("user", ask),) and "Teig im Winter" in r.prefill for r in chat.requests)
    assert chat.requests[0].prefill.endswith("\n\nText: How do I like tea?\nRewritten:")
    assert len({r.seed for r in chat.requests}) == 3
    assert teacher.rewriting(7).calls == 7


def test_the_embedded_model_is_not_asked_for_translations_of_its_own_accord(constitution: Constitution) -> None:
    other, own = ScriptedChat(lambda r, n: ""), ScriptedChat(lambda r, n: "")
    own.model = MODEL
    drawn = [Options().disguises(LanguageTeacher(chat, constitution)).families for chat in (other, own)]
    assert drawn == [(*DRAWN, *TRANSLATED), DRAWN]
