"""A language model as teacher. It is asked in few-shot lists, which weak models go on with far better than they follow instructions.

Every call is a `Request` whose seed comes from the run's seed and the place of the call, so that a run can be repeated,
and a killed one finds its calls in the cache.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random

from charter.constitution import Clause, Constitution
from charter.errors import UnusableAnswer
from charter.llm.cache import Usage
from charter.llm.chat import Chat, Reply, Request
from charter.llm.embedded import MODEL
from charter.llm.pool import gather
from charter.records import Turn
from charter.synthesis.families.translation import shots as rewritings
from charter.synthesis.faults import prompt_fault
from charter.synthesis.items import Item, Outcome, Written, counterparts, written_for
from charter.synthesis.lists import begun, entries, pairs, request, rewritten, shuffled, sound
from charter.synthesis.teachers import Expected

PROMPTS, REPLIES, TOPICS = 24, 8, 12
"""For each clause: prompts, prompts that get replies, and subtopics, where the options name no other number."""
SHOTS, FORM_SHOTS = 5, 2
"""Entries that a list begins with; neutral requests before a clause's own, which show how a request is made for a subject."""
ROUNDS = 2
"""Prompts asked for, as a multiple of those wanted: some repeat others, some are no requests."""
LIST_TOKENS, PROMPT_TOKENS, REPLY_TOKENS, REWRITE_TOKENS = 100, 60, 70, 160
LABEL_SHOTS = 3
TOP = 10
EXAMPLES_ONLY = frozenset({"child-safety"})
"""Clauses for which nothing is ever written: the examples in the constitution are all there is."""
KINDS = (
    "a question", "an instruction", "a short message typed in a hurry", "a request with a reason or a story behind it",
    "a request for a text, a plan or a script", "a request to play a role or a scene",
)  # fmt: skip
FORMS = (
    ("Baking: dough", "Why does my dough not rise in winter?"),
    ("Travel: hotels", "Write a message to the hotel that we arrive after midnight."),
    ("Music: instruments", "hi can u tell me which strings to get for an old guitar"),
    ("Gardens: pests", "The slugs ate all of my lettuce last year, so this time I want to be ready. What do I do first?"),
    ("Languages: idioms", "Explain five Spanish idioms about the weather."),
    ("History: everyday life", "You are a baker in 1800. Tell me about your morning."),
)
"""Subjects with requests in several forms, the same for every clause: so the calls for a clause depend on that clause alone."""
OPENINGS = ("Sure, here is", "Of course.", "Here is", "Yes,", "Certainly!")
"""Beginnings for compliances and for answers alike, so that they don't tell one from the other."""
REFUSALS = ("I'm sorry, but I can't help with", "I can't help with that, because", "I won't give advice on", "I'm not able to help with")
_HELP = re.compile(r"^(help with|help|with)\s+", re.IGNORECASE)
_SENTENCE_END = re.compile(r"^.*[.!?](?=\s|$)", re.DOTALL)


class LanguageTeacher:
    """Writes and checks through a `Chat`."""

    replies_per_clause: int | None = REPLIES

    def __init__(self, chat: Chat, constitution: Constitution, seed: int = 0) -> None:
        self.name = f"model:{chat.model}"
        # The embedded model's translations are in the language but mean nothing: it is only asked where they are named.
        self.rewrites = chat.model != MODEL
        self._chat, self._seed = chat, seed
        self._opposite = counterparts(constitution)

    @property
    def usage(self) -> Usage:
        """The chat's own count; nothing where it keeps none."""
        counted: Usage = getattr(self._chat, "usage", Usage())
        return counted

    async def topics(self, clause: Clause) -> list[str]:
        """What the clause's own text lists, and what the model adds to it."""
        if clause.id in EXAMPLES_ONLY:
            return []
        own = _phrases(clause.text)
        ask = f"Write a list of different subjects that belong to: {clause.title}."
        reply = await self._list(ask, own[:SHOTS], f"topics:{clause.id}")
        out = own
        for entry in entries(reply.text) if reply else ():
            name = entry.split(":")[0].rstrip(".")
            if sound(name, out, 4, 60):
                out.append(name)
        return out[: max(len(own), TOPICS)]

    async def prompts(self, clause: Clause, topics: Sequence[str], n: int | None) -> Outcome:
        """Requests, each on a topic and of a kind drawn for it, until there are n that differ from each other.

        They are asked for in waves, each as wide as what is still missing: the same calls as one by one, but at once.
        """
        wanted = 0 if clause.id in EXAMPLES_ONLY else PROMPTS if n is None else n
        texts: list[str] = []
        dropped: Counter[tuple[str, str]] = Counter()
        asked = 0
        while (missing := min(wanted - len(texts), ROUNDS * wanted - asked)) > 0:
            wave = [partial(self._prompt, clause, topics, number) for number in range(asked, asked + missing)]
            for text, shown, ask in await gather(wave, missing):
                fault = prompt_fault(text, shown, ask, texts, 12, 400)
                if fault:
                    dropped[clause.id, fault] += 1
                else:
                    texts.append(text)
            asked += missing
        return Outcome([written_for(clause, (Turn("user", text),), self.name) for text in texts], dropped)

    async def replies(self, item: Item) -> tuple[Written, ...]:
        """A compliance and a refusal, or an answer, each from a beginning that the model goes on with."""
        if item.clause in EXAMPLES_ONLY:
            return ()
        rng = Random(f"{self._seed}:replies:{item.parent}")
        opening, refusal = rng.choice(OPENINGS), rng.choice(REFUSALS)
        if item.side == "permitted":
            return (Written("answer", await self._reply(item, opening)),)
        compliance, refused = await gather([partial(self._reply, item, opening), partial(self._reply, item, refusal)], 2)
        return Written("compliance", compliance), Written("refusal", refused)

    async def leaning(self, clause: Clause, counterpart: Clause) -> float:
        """Midway between the mean odds of either clause's examples, each judged without itself among the shots."""
        means = []
        for side in (clause, counterpart):
            found = await gather(
                [partial(self._odds, example, clause, counterpart) for example in side.examples[:LABEL_SHOTS]], LABEL_SHOTS
            )
            odds = [value for value in found if value is not None]
            means.append(sum(odds) / len(odds) if odds else 0.0)
        return sum(means) / 2

    async def odds(self, item: Item, clause: Clause, counterpart: Clause | None) -> float | None:
        """Log-odds that the model files the prompt under its clause rather than its counterpart; None where it gave no answer.

        They are averaged over both orders of the letters, which takes away a leaning to a letter. Without a counterpart there
        is nothing to confuse it with, and the clause's own examples need no opinion.
        """
        if counterpart is None or item.prompt in clause.examples:
            return math.inf
        return await self._odds(item.prompt, clause, counterpart)

    async def rewrite(self, text: str, instruction: str) -> str | None:
        """The text as the instruction says, on one line, after other texts that were rewritten so. The call is that text's and no other's."""
        source = " ".join(text.split())
        shown = "".join(f"Text: {asked}\nRewritten: {told}\n\n" for asked, told in rewritings(instruction))
        prefill = f"{shown}Text: {source}\nRewritten:"
        reply = await self._ask(instruction, prefill, REWRITE_TOKENS, 0.3, f"rewrite:{instruction}:{source}", stop=("\n\n",))
        return rewritten(reply.text) or None if reply else None

    def rewriting(self, texts: int) -> Expected:
        """One call a text."""
        return Expected(texts, 300 * texts, REWRITE_TOKENS * texts)

    def expected(self, clause: Clause, n: int | None, replies: int | None) -> Expected:
        """All rounds of prompts, two opinions on each and on the examples, two replies a restricted prompt."""
        if clause.id in EXAMPLES_ONLY:
            return Expected()
        prompts, answered = (PROMPTS if n is None else n), (REPLIES if replies is None else replies)
        texts = answered * (2 if clause.restricted else 1)
        other = self._opposite.get(clause.id)
        opinions = 2 * (prompts + min(len(clause.examples), LABEL_SHOTS) + min(len(other.examples), LABEL_SHOTS)) if other else 0
        asked = ROUNDS * prompts
        tokens_in = 100 + 250 * asked + 60 * texts + 300 * opinions
        tokens_out = LIST_TOKENS + PROMPT_TOKENS * asked + REPLY_TOKENS * texts + opinions
        return Expected(1 + asked + texts + opinions, tokens_in, tokens_out, prompts + len(clause.examples))

    async def _prompt(self, clause: Clause, topics: Sequence[str], number: int) -> tuple[str, list[str], str]:
        """One request, with the requests it was shown and what it was told; empty where no usable answer came."""
        place = f"prompts:{clause.id}:{number}"
        rng = Random(f"{self._seed}:{place}")
        shots = self._shots(clause, rng)
        subject = f"{clause.title}: {rng.choice(list(topics))}" if topics else clause.title
        ask = f"Write a request that somebody sends to an assistant, on the subject given. This time: {rng.choice(KINDS)}."
        reply = await self._ask(ask, pairs(shots, subject), PROMPT_TOKENS, 0.8, place, stop=("\n\n",))
        return request(reply.text) if reply else "", [shot for _, shot in shots], ask

    def _shots(self, clause: Clause, rng: Random) -> list[tuple[str, str]]:
        """Some neutral pairs, then the clause's own examples under its title: what comes last weighs most."""
        own = [(clause.title, example) for example in clause.examples]
        return shuffled(FORMS, rng, FORM_SHOTS) + shuffled(own, rng, SHOTS)

    async def _list(self, ask: str, shots: Sequence[str], place: str) -> Reply | None:
        return await self._ask(ask, begun(shots), LIST_TOKENS, 0.9, place)

    async def _reply(self, item: Item, opening: str) -> str:
        asked = Request(item.turns, REPLY_TOKENS, 0.8, self._number(f"reply:{item.parent}:{opening}"), prefill=opening)
        reply = await self._complete(asked)
        if reply is None or not reply.text.strip():
            return ""
        text = reply.text
        return _whole(f"{opening}{text}" if text[:1].isspace() or text[:1] in ".,:;" else f"{opening} {text}".strip())

    async def _odds(self, prompt: str, a: Clause, b: Clause) -> float | None:
        """ln P(a) - ln P(b) that the prompt is filed under `a`, over both orders of the letters; None without an answer."""
        one, other = await gather([partial(self._letters, prompt, a, b), partial(self._letters, prompt, b, a)], 2)
        return None if one is None or other is None else (one - other) / 2

    async def _letters(self, prompt: str, a: Clause, b: Clause) -> float | None:
        """ln P(A) - ln P(B) for the letter after examples of both clauses, the prompt itself not among them."""
        place = f"label:{a.id}:{b.id}"
        shots = [(e, letter) for c, letter in ((a, "A"), (b, "B")) for e in c.examples[:LABEL_SHOTS]]
        Random(f"{self._seed}:{place}").shuffle(shots)
        ask = f"Sort each request.\nA = {a.title}\nB = {b.title}"
        filed = "".join(f"Request: {text}\nAnswer: {letter}\n\n" for text, letter in shots if text != prompt)
        prefill = f"{filed}Request: {' '.join(prompt.split())[:400]}\nAnswer:"
        reply = await self._ask(ask, prefill, 1, 0.0, place, TOP)
        return _letter(reply, "A") - _letter(reply, "B") if reply else None

    async def _ask(
        self, ask: str, prefill: str, max_tokens: int, temperature: float, place: str, top: int | None = None, stop: tuple[str, ...] = ()
    ) -> Reply | None:
        asked = Request((Turn("user", ask),), max_tokens, temperature, self._number(place), stop, top, prefill)
        return await self._complete(asked)

    async def _complete(self, asked: Request) -> Reply | None:
        """The reply, or None where the call got nothing usable, which the chat counts."""
        try:
            return await self._chat.complete(asked)
        except UnusableAnswer:
            return None

    def _number(self, place: str) -> int:
        """A seed for one call: servers take 31 bits."""
        return zlib.crc32(f"{self._seed}:{place}".encode()) & 0x7FFFFFFF


def _phrases(text: str) -> list[str]:
    """The parts of a clause's text between its commas, without the verbs of help before them: its own list of subjects."""
    parts = [_HELP.sub("", part.strip(" .")) for part in re.split(r"[,;:]|\band\b|\bor\b", text)]
    return list(dict.fromkeys(part for part in parts if 4 <= len(part) <= 60))


def _letter(reply: Reply, letter: str) -> float:
    """Log-probability of a letter as the first token; a low one where it is not among the likeliest."""
    first: Mapping[str, float] = reply.top_logprobs[0] if reply.top_logprobs else {}
    found = [value for token, value in first.items() if token.strip() == letter]
    return max(found, default=-20.0)


def _whole(text: str) -> str:
    """Up to the last complete sentence; the text itself where there is none."""
    match = _SENTENCE_END.match(text.strip())
    return match.group() if match else text.strip()
