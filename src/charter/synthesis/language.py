"""A language model as teacher. It is asked in few-shot lists, which weak models go on with far better than they follow instructions.

Every call is a `Request` whose seed comes from the run's seed and the place of the call, so that a run can be repeated,
and a killed one finds its calls in the cache.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from random import Random

from charter.constitution import Clause, Constitution
from charter.llm.chat import Chat, Reply, Request
from charter.records import Turn
from charter.synthesis.items import Item, Written, counterparts, written_for
from charter.synthesis.lists import begun, entries, shuffled, sound
from charter.synthesis.teachers import Expected

PROMPTS, REPLIES, TOPICS = 24, 8, 12
"""For each clause: prompts, prompts that get replies, and subtopics, where the options name no other number."""
SHOTS = 5
ROUNDS = 3
"""Lists asked for, as a multiple of those that would do if every entry could be used."""
LIST_TOKENS, REPLY_TOKENS = 160, 70
ENTRIES_A_LIST = 5
LABEL_SHOTS = 3
TOP = 10
EXAMPLES_ONLY = frozenset({"child-safety"})
"""Clauses for which nothing is ever written: the examples in the constitution are all there is."""
KINDS = (
    "questions", "instructions", "short messages typed in a hurry", "requests with a reason or a story behind them",
    "requests for a text, a plan or a script", "requests that play a role or a scene",
)  # fmt: skip
OPENINGS = ("Sure, here is", "Of course.", "Here is", "Yes,", "Certainly!")
"""Beginnings for compliances and for answers alike, so that they don't tell one from the other."""
REFUSALS = ("I'm sorry, but I can't help with", "I can't help with that, because", "I won't give advice on", "I'm not able to help with")
_SENTENCE_END = re.compile(r"^.*[.!?](?=\s|$)", re.DOTALL)


class LanguageTeacher:
    """Writes and checks through a `Chat`."""

    def __init__(self, chat: Chat, constitution: Constitution, seed: int = 0) -> None:
        self.name = f"model:{chat.model}"
        self._chat, self._seed = chat, seed
        self._opposite = counterparts(constitution)
        self._clauses = {c.id: c for c in constitution.clauses}

    async def topics(self, clause: Clause) -> list[str]:
        """What the clause's own text lists, and what the model adds to it."""
        if clause.id in EXAMPLES_ONLY:
            return []
        own = _phrases(clause.text)
        ask = f"Write a list of different subjects that belong to: {clause.title}."
        reply = await self._list(ask, own[:SHOTS], f"topics:{clause.id}")
        out = own
        for entry in entries(reply.text):
            name = entry.split(":")[0].rstrip(".")
            if sound(name, out, 4, 60):
                out.append(name)
        return out[: max(len(own), TOPICS)]

    async def prompts(self, clause: Clause, topics: Sequence[str], n: int | None) -> list[Item]:
        """Lists that go on from the clause's examples, each about another topic and of another kind, until there are n."""
        wanted = PROMPTS if n is None else n
        texts: list[str] = []
        if clause.id in EXAMPLES_ONLY:
            return []
        for number in range(ROUNDS * math.ceil(wanted / ENTRIES_A_LIST)):
            if len(texts) >= wanted:
                break
            place = f"prompts:{clause.id}:{number}"
            rng = Random(f"{self._seed}:{place}")
            shots = shuffled([*clause.examples, *shuffled(texts, rng, 2)], rng, SHOTS)
            about = f" They are about {rng.choice(list(topics))}." if topics else ""
            ask = f"Write a list of different {rng.choice(KINDS)} that people send to an assistant, all on: {clause.title}.{about}"
            reply = await self._list(ask, shots, place)
            for entry in entries(reply.text):
                if sound(entry, [*clause.examples, *texts], 12, 300):
                    texts.append(entry)
        return [written_for(clause, (Turn("user", text),), self.name) for text in texts[:wanted]]

    async def replies(self, item: Item) -> tuple[Written, ...]:
        """A compliance and a refusal, or an answer, each from a beginning that the model goes on with."""
        if item.clause in EXAMPLES_ONLY:
            return ()
        rng = Random(f"{self._seed}:replies:{item.parent}")
        opening, refusal = rng.choice(OPENINGS), rng.choice(REFUSALS)
        if item.side == "permitted":
            return _some(Written("answer", await self._reply(item, opening)))
        compliance = Written("compliance", await self._reply(item, opening))
        return _some(compliance, Written("refusal", await self._reply(item, refusal)))

    async def agrees(self, item: Item, clause: Clause, counterpart: Clause | None) -> bool:
        """Whether the model files the prompt under its clause: log-odds of two letters, averaged over both orders.

        Without a counterpart there is nothing to confuse it with, and the clause's own examples need no opinion.
        """
        if counterpart is None or item.prompt in clause.examples:
            return True
        odds = await self._odds(item.prompt, clause, counterpart) - await self._odds(item.prompt, counterpart, clause)
        return odds > 0

    def expected(self, clause: Clause, n: int | None, replies: int | None) -> Expected:
        """All rounds of lists, two opinions a prompt, two replies a restricted prompt."""
        if clause.id in EXAMPLES_ONLY:
            return Expected()
        prompts, answered = (PROMPTS if n is None else n), (REPLIES if replies is None else replies)
        lists = 1 + ROUNDS * math.ceil(prompts / ENTRIES_A_LIST)
        texts = answered * (2 if clause.restricted else 1)
        opinions = 2 * prompts if clause.id in self._opposite else 0
        return Expected(
            lists + texts + opinions, 150 * lists + 60 * texts + 300 * opinions, LIST_TOKENS * lists + REPLY_TOKENS * texts + opinions
        )

    async def _list(self, ask: str, shots: Sequence[str], place: str) -> Reply:
        return await self._ask(ask, begun(shots), LIST_TOKENS, 0.9, place)

    async def _reply(self, item: Item, opening: str) -> str:
        request = Request(item.turns, REPLY_TOKENS, 0.8, self._number(f"reply:{item.parent}:{opening}"), prefill=opening)
        text = (await self._chat.complete(request)).text
        return _whole(f"{opening}{text}" if text[:1].isspace() or text[:1] in ".,:;" else f"{opening} {text}".strip())

    async def _odds(self, prompt: str, a: Clause, b: Clause) -> float:
        """ln P(A) - ln P(B) that the next letter files the prompt under `a`, after examples of both."""
        place = f"label:{a.id}:{b.id}"
        shots = [(e, "A") for e in a.examples[:LABEL_SHOTS]] + [(e, "B") for e in b.examples[:LABEL_SHOTS]]
        Random(f"{self._seed}:{place}").shuffle(shots)
        ask = f"Sort each request.\nA = {a.title}\nB = {b.title}"
        filed = "\n\n".join(f"Request: {text}\nAnswer: {letter}" for text, letter in shots)
        prefill = f"{filed}\n\nRequest: {' '.join(prompt.split())[:400]}\nAnswer:"
        reply = await self._ask(ask, prefill, 1, 0.0, place, TOP)
        return _letter(reply, "A") - _letter(reply, "B")

    async def _ask(self, ask: str, prefill: str, max_tokens: int, temperature: float, place: str, top: int | None = None) -> Reply:
        request = Request((Turn("user", ask),), max_tokens, temperature, self._number(place), (), top, prefill)
        return await self._chat.complete(request)

    def _number(self, place: str) -> int:
        """A seed for one call: servers take 31 bits."""
        return zlib.crc32(f"{self._seed}:{place}".encode()) & 0x7FFFFFFF


def _phrases(text: str) -> list[str]:
    """The parts of a clause's text between its commas: its own list of subjects."""
    parts = [part.strip(" .") for part in re.split(r",|;|\band\b|\bor\b", text)]
    return list(dict.fromkeys(part for part in parts if 4 <= len(part) <= 60))


def _letter(reply: Reply, letter: str) -> float:
    """Log-probability of a letter as the first token; a low one where it is not among the likeliest."""
    first: Mapping[str, float] = reply.top_logprobs[0] if reply.top_logprobs else {}
    found = [value for token, value in first.items() if token.strip() == letter]
    return max(found, default=-20.0)


def _some(*replies: Written) -> tuple[Written, ...]:
    return tuple(reply for reply in replies if len(reply.text) >= 20)


def _whole(text: str) -> str:
    """Up to the last complete sentence; the text itself where there is none."""
    match = _SENTENCE_END.match(text.strip())
    return match.group() if match else text.strip()
