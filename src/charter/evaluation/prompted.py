"""A classifier that is a prompt: the whole transcript to a language model, which gives a verdict by the constitution's own words.

The baseline that a trained guard has to beat, and a labeller. It costs a call of a large model for each exchange and knows no tokens,
so a verdict has no position and its score is 0 or 1. A reply that is no verdict flags, and is counted (`Judgement.fault`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice

from charter.constitution import Clause, Constitution
from charter.errors import ConstitutionError, UnusableAnswer
from charter.evaluation.datasets import Set
from charter.evaluation.framing import Escaping, parse, question, rules
from charter.evaluation.run import Outcome, SetResult
from charter.llm.chat import Chat, Request
from charter.llm.pool import Progress, gather, quiet
from charter.records import Exchange, Turn, Verdict

WINDOW = 256
"""Exchanges handed out together, so that memory does not grow with the file."""
VERDICT_TOKENS, REASON_TOKENS = 96, 1_024
NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the judge made of one exchange."""

    exchange: Exchange
    verdict: Verdict
    fault: str | None
    """Why its reply was no verdict, in a few words; None where it was one."""
    reply: str
    """In its own words; "" where none came."""
    tokens: int
    """Read and written by the judge."""


class PromptedClassifier:
    """A constitution, or one clause of it, in front of a chat."""

    def __init__(
        self,
        chat: Chat,
        constitution: Constitution,
        clause: str | None = None,
        reasons: bool = False,
        escaping: Escaping = "tags",
        seed: int = 0,
    ) -> None:
        """Pass a `CachedChat`, so that no exchange is paid for twice.

        Args:
            clause: judge by this restricted clause and its counterpart alone; None: by the whole constitution.
            reasons: let the judge argue before it decides (chain of thought).
            escaping: how text from outside is written; see `framing.Escaping`.
            seed: of the digits in the tags and of the request.

        Raises:
            ConstitutionError: there is no such restricted clause.
        """
        self._chat, self._reasons, self._escaping, self._seed = chat, reasons, escaping, seed
        restricted, permitted = _clauses(constitution, clause)
        self.clauses = tuple(c.id for c in restricted)
        """Restricted clauses that a verdict may name."""
        self._system = Turn("system", rules(restricted, permitted))

    def request(self, exchange: Exchange) -> tuple[Request, str]:
        """What the judge is asked, and the digits that its verdict must carry."""
        asked, digits = question(exchange, self.clauses, self._reasons, self._escaping, self._seed)
        tokens = VERDICT_TOKENS + self._reasons * REASON_TOKENS
        return Request((self._system, Turn("user", asked)), tokens, temperature=0.0, seed=self._seed), digits

    async def judge(self, exchange: Exchange) -> Judgement:
        """The verdict on an exchange: on its reply where there is one, else on its prompt.

        Raises:
            TeacherError: the model can't be reached. (That it gives nothing usable for this exchange flags it.)
            BudgetExceeded: the call might pass the cost cap.
        """
        request, digits = self.request(exchange)
        try:
            reply = await self._chat.complete(request)
        except UnusableAnswer:
            return Judgement(exchange, Verdict(True, 1.0, None, None), NO_ANSWER, "", 0)
        answer = parse(reply.text, digits, self.clauses, self._reasons)
        verdict = Verdict(answer.flagged, float(answer.flagged), answer.clause, None)
        return Judgement(exchange, verdict, answer.fault, reply.text, reply.prompt_tokens + reply.completion_tokens)

    async def judge_all(self, exchanges: Iterable[Exchange], limit: int = 8) -> AsyncIterator[Judgement]:
        """Judgements in order, at most `limit` calls in flight. Raises as `judge` does."""
        rest = iter(exchanges)
        while window := list(islice(rest, WINDOW)):
            for judgement in await gather([partial(self.judge, exchange) for exchange in window], limit):
                yield judgement

    async def judge_set(self, s: Set, limit: int = 8, progress: Progress = quiet) -> tuple[SetResult, Counter[str]]:
        """A set as `evaluation.run` gives it for a guard, so the same figures can be drawn from it, and the faults by kind."""
        outcomes, faults = [], Counter[str]()
        async for judgement in self.judge_all((item.exchange for item in s.items), limit):
            outcomes.append(Outcome(judgement.verdict, judgement.tokens))
            faults.update([judgement.fault] if judgement.fault else [])
            progress(f"judge {s.name}", len(outcomes), len(s.items))
        return SetResult(s.name, s.kind, s.items, tuple(outcomes)), faults


def _clauses(constitution: Constitution, name: str | None) -> tuple[tuple[Clause, ...], tuple[Clause, ...]]:
    """Restricted and permitted clauses that the judge is told."""
    if name is None:
        return constitution.restricted, constitution.permitted
    chosen = tuple(c for c in constitution.restricted if c.id == name)
    if not chosen:
        known = ", ".join(c.id for c in constitution.restricted)
        raise ConstitutionError(f"{constitution.name} has no restricted clause {name!r}; its restricted clauses are {known}")
    return chosen, tuple(c for c in constitution.permitted if c.id == chosen[0].counterpart)
