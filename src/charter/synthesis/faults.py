"""What a teacher gives instead of what it was asked for: a refusal, an echo of what it was shown, or nothing. Named, so that it can be counted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from charter.synthesis.lists import sound

SHORTEST_REPLY = 20
_VERBS = "help|assist|provide|give|write|create|generate|fulfil|fulfill|comply|support|do|continue|produce|engage|discuss"
_DECLINES = re.compile(
    # a person who is sorry or unable asks too: only who declines *this* is meant
    rf"^\W*((i'm|i am) (so |very |really |truly )?(sorry|afraid)|sorry|i apologi[sz]e|unfortunately|no)?\W*(but |that )?(as an ai[^.]*?\W)?"
    rf"i('m| am)? (can't|can not|cannot|won't|will not|am unable to|unable to|not able to|must decline to|am not comfortable)"
    rf"( \w+)? ({_VERBS})\w*( you)?( with)?( (that|this|these|those|your|any|such|requests?|content))"
    r"|^\W*as an ai\b|against my (guidelines|principles|policy|policies)|^\W*i (must|have to) (decline|refuse)",
    re.IGNORECASE,
)
_FORM = re.compile(r"\b(Subject|Request):", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def declines(text: str) -> bool:
    """Whether a text declines to write what was asked for, rather than being a request of somebody who is sorry or unable."""
    return bool(_DECLINES.search(text[:200].replace("\u2019", "'")))


def prompt_fault(text: str, shown: Sequence[str], ask: str, known: Iterable[str], shortest: int, longest: int) -> str | None:
    """Why a text is not taken as a new request; None: it is.

    Args:
        text: what the teacher gave.
        shown: the requests it was shown as examples.
        ask: what it was told to do.
        known: the requests it gave before.
        shortest, longest: characters of a usable request.
    """
    words = _words(text)
    if not text.strip():
        return "an empty answer"
    if declines(text):
        return "a refusal"
    if any(words == _words(shot) for shot in shown) or words in _words(ask) or _words(ask)[:60] in words or _FORM.search(text):
        return "an echo"
    if not sound(text, (), shortest, longest):
        return "too short or too long"
    return None if sound(text, (*shown, *known), shortest, longest) else "repeated"


def reply_fault(text: str, prompt: str) -> str | None:
    """Why a text is not taken as a reply to the prompt; None: it is."""
    if not text.strip():
        return "an empty answer"
    if len(text) < SHORTEST_REPLY:
        return "too short"
    asked, said = _words(prompt), _words(text)
    if asked and (said == asked or (said.endswith(asked) and len(said) < len(asked) + 40 and len(asked) >= SHORTEST_REPLY)):
        return "an echo"
    return None


def _words(text: str) -> str:
    """The text's words alone, in lower case, to compare."""
    return " ".join(_WORD.findall(text.lower()))
