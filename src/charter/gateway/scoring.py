"""A guarded conversation off the event loop: every channel of a reply is scored in worker threads, in order, and held back.

A channel is one text of one choice: its content, its reasoning, the arguments of a tool call. Each has a session of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from time import perf_counter

from charter.gateway.channels import Path
from charter.gateway.counters import Ledger
from charter.gateway.scorer import UNSCORED, Scorer, ScoringFailed
from charter.gateway.trail import Trail
from charter.guard.holdback import OpenGuard
from charter.guard.policy import decide
from charter.records import Turn, Verdict

Key = tuple[int, Path]
"""A choice and one of its texts."""


class Conversation:
    """One request under guard: the prompt's verdict, and a channel for each text of the reply."""

    def __init__(self, scorer: Scorer, turns: tuple[Turn, ...]) -> None:
        self.scorer, self.guard, self.turns = scorer, scorer.guard, turns
        self.settings = scorer.settings
        self.ledger = Ledger(scorer.counters, scorer.settings.mode)
        self.trail = Trail(scorer.observer, turns, self.guard)
        self.channels: list[Channel] = []
        """In the order in which they began."""
        self.verdict = UNSCORED
        """The prompt's."""
        self.unscored = False
        """Scoring the prompt failed and on_error is open: nothing of this conversation is scored."""
        self._first: OpenGuard | None = None
        self._judged: OpenGuard | None = None

    async def check_prompt(self) -> Verdict:
        """Judge the prompt.

        Raises:
            ScoringFailed: and failures are closed.
        """
        start = perf_counter()
        try:
            self._first = self._judged = await self.scorer.call(self.guard.open, self.turns)
        except ScoringFailed as error:
            self.trail.prompt(UNSCORED, "allow" if self.passes_failures else "block", perf_counter() - start, str(error))
            if not self.passes_failures:
                raise
            self.unscored = True
            return self.verdict
        self.verdict = self._first.prompt_verdict
        self.scorer.counters.flagged_prompts += self.verdict.flagged
        self.trail.prompt(self.verdict, decide(self.verdict, self.settings.mode), perf_counter() - start)
        return self.verdict

    async def clause_scores(self) -> dict[str, float]:
        """Highest probability of each clause in the prompt and the first of the reply's channels; none where it was not scored.

        Raises:
            ScoringFailed: whatever on_error says.
        """
        return await self.scorer.call(self.guard.clause_scores, self._judged) if self._judged is not None else {}

    def count_reply(self, verdict: Verdict) -> None:
        """A choice of the reply was flagged."""
        action = decide(verdict, self.settings.mode)
        self.scorer.counters.flagged_replies += 1
        self.scorer.counters.blocked_replies += action == "block"
        self.trail.update()

    @property
    def passes_failures(self) -> bool:
        """Whether text passes where it can't be scored. Shadow mode never blocks."""
        return self.settings.on_error == "open" or self.settings.mode == "shadow"

    @property
    def session(self) -> OpenGuard | None:
        """The session that judged the prompt, until the first channel goes on with it."""
        return self._first

    @property
    def judged(self) -> OpenGuard | None:
        """The session that judged the prompt, for as long as the conversation lasts; None where it was not scored."""
        return self._judged

    def channel(self, key: Key) -> Channel:
        """A new channel. The first one goes on with the session that judged the prompt."""
        first, self._first = self._first, None
        channel = Channel(self, key, first)
        self.trail.follow(key[0], channel)
        self.channels.append(channel)
        return channel


class Channel:
    """One text of a reply. `push` and `flush` give what may leave now; in shadow mode that is all, at once."""

    def __init__(self, conversation: Conversation, key: Key, session: OpenGuard | None) -> None:
        self._conversation, self._key, self._session = conversation, key, session
        self._scorer, self._ledger = conversation.scorer, conversation.ledger
        self._text: list[str] = []
        """All that came, for a channel that goes on after it was flushed."""
        self._held = ""
        """What came and was not released: the guard's own hold-back is not relied on for it."""
        self._half = ""
        """A high surrogate whose other half has not come yet."""
        self._repeated = 0
        """Characters that a second session reads again and that were released before."""
        self.flushed = False
        self.times_flushed = 0
        self.unscored = conversation.unscored
        self.verdict = UNSCORED
        self.problem: str | None = None
        """Why it could not be scored to its end."""
        self.seconds = 0.0
        """Spent scoring it."""

    @property
    def key(self) -> Key:
        return self._key

    @property
    def session(self) -> OpenGuard | None:
        """What scores it; None until it has begun."""
        return self._session

    @property
    def flagged(self) -> bool:
        return self.verdict.flagged

    @property
    def text(self) -> str:
        """All that came, what is withheld included."""
        return "".join(self._text)

    @property
    def held(self) -> str:
        """What came and has not been released."""
        return self._held + self._half

    async def push(self, text: str) -> str:
        """Take a piece; returns what may leave.

        Raises:
            ScoringFailed: and failures are closed. The channel is at its end then.
        """
        text = self._whole(text)
        return await self._take(text) if text else ""

    async def flush(self) -> str:
        """The text has ended; returns the rest that may leave. More may come nevertheless: it is then read after all that was.

        Raises:
            ScoringFailed: as above.
        """
        rest = await self._take("\ufffd") if self._half else ""
        self._half = ""
        if self.flushed or self._session is None:
            return rest
        self.flushed, self.times_flushed = True, self.times_flushed + 1
        session = self._session
        return rest + await self._step("", lambda: session.flush())

    async def take(self, text: str) -> str:
        """All of a text, of a channel that has not begun: what `push` and then `flush` give, in one step.

        Raises:
            ScoringFailed: as above.
        """
        text = self._whole(text) + ("\ufffd" if self._half else "")
        self._half = ""
        if not text:
            return await self.flush()
        self._text.append(text)
        self._held += text
        pushed: list[str] = []

        def score() -> str:
            pushed.append(self._score(text))
            assert self._session is not None
            return pushed[0] + self._session.flush()

        out = await self._step(text, score, pushed)
        self.flushed, self.times_flushed = True, 1
        return out

    async def glance(self) -> Verdict:
        """The verdict if the text ended here. The channel goes on as if nobody had asked; only the open word is scored twice.

        Raises:
            ScoringFailed: and failures are closed. The channel is at its end then.
        """
        session = self._session
        if session is None or self.unscored or self.flagged or self.flushed:
            return self.verdict
        try:
            return await self._scorer.call(_ended, session)
        except ScoringFailed:
            if not self._conversation.passes_failures:
                raise
            self.unscored = True
            return self.verdict

    async def _take(self, text: str) -> str:
        self._text.append(text)
        self._held += text
        return await self._step(text, lambda: self._score(text))

    def _score(self, text: str) -> str:
        """In a worker thread. A session that was flushed takes no more: another reads the whole text from its start."""
        if self._session is None or self.flushed:
            self._session = self._conversation.guard.open(self._conversation.turns)
            if self.flushed:
                self.flushed, self._repeated = False, sum(map(len, self._text)) - len(self._held)
                text = "".join(self._text)
        return self._session.push(text)

    async def _step(self, text: str, score: Callable[[], str], done: Sequence[str] = ()) -> str:
        """`done`: what `score` had released when it failed, which is scored all the same."""
        shadow, before = self._conversation.settings.mode == "shadow", ""
        if not self.unscored:
            start = perf_counter()
            try:
                released = self._passed(await self._scorer.call(score))
            except ScoringFailed as error:
                self.problem = str(error)
                if not self._conversation.passes_failures:
                    raise
                before = self._passed(done[0]) if done else ""
                self.unscored = True
            else:
                return text if shadow else released
            finally:
                self.seconds += perf_counter() - start
        out, self._held = text if shadow else before + self._held, ""
        return out

    def _passed(self, released: str) -> str:
        """What the guard released, less what had left before; all of it must be text that came."""
        again = released[: self._repeated]
        self._repeated -= len(again)
        released = released[len(again) :]
        if not self._held.startswith(released):
            raise self._scorer.failure("the guard released text that it was not given")
        self._held = self._held[len(released) :]
        self._ledger.passed(self._key, released)
        assert self._session is not None
        self.verdict = self._session.reply_verdict
        if self.verdict.flagged:
            self._ledger.flagged(self._key)
        return released

    def _whole(self, text: str) -> str:
        """Text without halves of surrogate pairs: those that the upstream cut apart are joined, others become U+FFFD."""
        if text.isascii() and not self._half:
            return text
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _ended(session: OpenGuard) -> Verdict:
    """A copy's verdict once it has been flushed, in a worker thread."""
    twin = copy.deepcopy(session)
    twin.flush()
    return twin.reply_verdict
