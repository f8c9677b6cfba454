"""Counts what left against what was scored, at the last step before the wire: the guarantee is measured, not assumed.

The hold-back decides what may leave; the ledger knows nothing of it. It is told which text the guard passed, reads every
frame that is sent, and counts each character that is not among the passed ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass

from charter.guard.policy import Mode


@dataclass(slots=True)
class Counters:
    """Totals since the gateway started. Changed on the event loop only."""

    requests: int = 0
    """Chat completions and moderations that were asked for, malformed ones included."""
    flagged_prompts: int = 0
    """Verdicts; what was done about them is counted apart."""
    flagged_replies: int = 0
    """Replies (choices of one) with a flagged channel."""
    blocked_prompts: int = 0
    blocked_replies: int = 0
    """Replies (choices of one) that were cut, because they were flagged or because scoring failed."""
    errors: int = 0
    """Scoring steps that failed or took too long."""
    released_unscored_chars: int = 0
    """Characters sent without having been scored: 0 unless on_error is open, or scoring fails in shadow mode."""
    released_after_verdict_chars: int = 0
    """Characters sent from the flagged token on: 0 in enforce mode; in shadow mode, what enforce would have withheld."""


class Ledger:
    """One response's account: for each channel, the text that passed and has not been sent yet."""

    def __init__(self, counters: Counters, mode: Mode) -> None:
        self._counters, self._shadow = counters, mode == "shadow"
        self._due: dict[Hashable, str] = defaultdict(str)
        self._early: dict[Hashable, str] = defaultdict(str)
        self._flagged: set[Hashable] = set()

    def passed(self, channel: Hashable, text: str) -> None:
        """The guard scored this text and passed it."""
        same = _common(self._early[channel], text)
        self._early[channel] = self._early[channel][same:]
        self._due[channel] += text[same:]

    def flagged(self, channel: Hashable) -> None:
        """The guard flagged this channel: nothing more of it passes."""
        self._flagged.add(channel)

    def sent(self, channel: Hashable, text: str) -> None:
        """This text goes out now."""
        due = self._due[channel]
        same = _common(due, text)
        self._due[channel] = due[same:]
        if self._shadow:  # text runs ahead of its scores there; settled in the end
            self._early[channel] += text[same:]
        else:
            self._charge(channel, len(text) - same)

    def settle(self) -> None:
        """The response has ended; charges what shadow mode sent and the guard never passed."""
        for channel, text in self._early.items():
            self._charge(channel, len(text))
        self._early.clear()

    def _charge(self, channel: Hashable, chars: int) -> None:
        if channel in self._flagged:
            self._counters.released_after_verdict_chars += chars
        else:
            self._counters.released_unscored_chars += chars


def _common(a: str, b: str) -> int:
    """Length of the common prefix."""
    if a.startswith(b):
        return len(b)
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
