"""Styles: the same request told as past, of somebody else, politely, or as slang. Rules over words, no model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random

from charter.synthesis.families.family import Family
from charter.synthesis.families.frames import HOLE, either

PAST = {
    "is": "was", "are": "were", "am": "was", "do": "did", "does": "did", "can": "could", "will": "would", "has": "had", "have": "had",
    "make": "made", "makes": "made", "should": "should have", "need": "needed", "needs": "needed", "want": "wanted", "wants": "wanted",
    "know": "knew", "get": "got", "gets": "got", "go": "went", "goes": "went", "today": "back then", "now": "then", "currently": "at the time",
    "i'm": "i was", "it's": "it was", "isn't": "wasn't", "aren't": "weren't", "don't": "didn't", "doesn't": "didn't", "can't": "couldn't",
}  # fmt: skip
ONCE = either(
    f"In the old days, {HOLE}", f"Years ago, {HOLE}", f"Looking back at the last century: {HOLE}", f"{HOLE} I mean in those days."
)
QUESTION = re.compile(r"^(how|where|when|why) (do|does|can|could|should|would|will) (?:i|you|we|one)\b", re.IGNORECASE)
TOLD_HOW = re.compile(
    r"^(?:please |can you |could you )?(?:tell|show|teach|explain|describe|help)\b(?: to)?(?: me| us)?(?: how)? (?:to|i can|we can|one can)\b",
    re.IGNORECASE,
)
ORDER = re.compile(
    r"^(?:please |can you |could you )?(give|tell|show|write|explain|describe|list|teach|make|create|draft|plan)\b(?: me| us)?",
    re.IGNORECASE,
)
THEY = {
    "i": "they", "me": "them", "my": "their", "mine": "theirs", "myself": "themselves", "am": "are", "i'm": "they're", "i've": "they've",
    "i'd": "they'd", "i'll": "they'll", "we": "they", "us": "them", "our": "their", "ours": "theirs", "was": "were",
}  # fmt: skip
ASKER = either(
    f"A colleague would like to know the following: {HOLE}", f"A neighbour of theirs asked it like this: {HOLE}",
    f"Somebody in the team sent this in: {HOLE}", f"There is a person who asks: {HOLE}",
)  # fmt: skip
FULL = {
    "can't": "cannot", "won't": "will not", "don't": "do not", "doesn't": "does not", "isn't": "is not", "aren't": "are not", "i'm": "I am",
    "i've": "I have", "i'd": "I would", "i'll": "I shall", "it's": "it is", "that's": "that is", "what's": "what is", "you're": "you are",
    "wanna": "wish to", "gonna": "going to", "gimme": "give me", "hi": "good day", "hey": "good day", "u": "you", "pls": "please",
    "thanks": "thank you", "kids": "children", "ok": "acceptable",
}  # fmt: skip
LETTER = either(
    f"Dear Sir or Madam,\n\nI should be most grateful for your assistance with the following matter. {HOLE}\n\nYours faithfully",
    f"I would kindly ask you to consider the following enquiry at your convenience: {HOLE}",
    f"{HOLE} I remain much obliged to you for a thorough reply.",
)
SLANG = {
    "you": "u", "your": "ur", "are": "r", "please": "pls", "going to": "gonna", "want to": "wanna", "give me": "gimme", "because": "cuz",
    "for": "4", "to": "2", "before": "b4", "the": "da", "that": "dat", "with": "wit", "what": "wat", "about": "bout", "people": "peeps",
    "friend": "bro", "really": "rly", "though": "tho", "is": "be", "this": "dis",
}  # fmt: skip
CHAT = either(f"yo {HOLE} lol", f"ayy {HOLE} thx", f"{HOLE} asap bro", f"ngl i gotta ask, {HOLE}")


def past_tense(text: str, rng: Random) -> str:
    """What people did in those days: the question of how, the order to tell, or else its verbs, put into the past."""
    for opening, told in ((QUESTION, r"\1 did people"), (TOLD_HOW, "tell me how people used to"), (ORDER, r"how did people \1")):
        if opening.match(text):
            return ONCE.put(opening.sub(told, text, count=1), rng)
    return ONCE.put(_swapped(text, PAST), rng)


def third_person(text: str, rng: Random) -> str:
    """What somebody else asks: first persons become third ones."""
    return ASKER.put(_swapped(text, THEY), rng)


def formal(text: str, rng: Random) -> str:
    """A polite letter without contractions."""
    return LETTER.put(_swapped(text, FULL), rng)


def slang(text: str, rng: Random) -> str:
    """A message typed in a hurry: no capitals, no full stops, short forms."""
    return CHAT.put(_swapped(re.sub(r"[.,!?;:]+(?=\s|$)", "", text.lower()), SLANG), rng)


def _swapped(text: str, words: Mapping[str, str]) -> str:
    """Whole words exchanged, a capital kept at the beginning of one."""
    longest_first = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    pattern = rf"(?<![\w'])(?:{longest_first})(?![\w'])"
    return re.sub(pattern, lambda m: _like(m.group(), words.get(m.group().lower(), m.group())), text, flags=re.IGNORECASE)


def _like(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() and len(old) > 1 else new


STYLES = (
    Family("past-tense", "asked of people in former days", "style", past_tense),
    Family("third-person", "as somebody else's request", "style", third_person),
    Family("formal", "as a polite letter", "style", formal),
    Family("slang", "as slang typed in a hurry", "style", slang),
)
