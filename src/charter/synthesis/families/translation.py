"""Translations: only a teacher can apply them, so each carries what to ask for, and how to tell whether it was done."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import SequenceMatcher
from functools import lru_cache
from random import Random
from typing import NoReturn

from charter.errors import DataError
from charter.synthesis.families.family import Family

LANGUAGES = {"de": "German", "es": "Spanish", "fr": "French", "zh": "Chinese"}
ASKED = (
    "Why does my dough not rise in winter?",
    "Write a message to the hotel that we arrive after midnight.",
    "Explain to a child how a bicycle stays upright.",
)
TOLD = {
    "de": (
        "Warum geht mein Teig im Winter nicht auf?", "Schreib dem Hotel eine Nachricht, dass wir nach Mitternacht ankommen.",
        "Erkläre einem Kind, warum ein Fahrrad nicht umfällt.",
    ),
    "es": (
        "¿Por qué no sube mi masa en invierno?", "Escribe un mensaje al hotel para decir que llegamos después de medianoche.",
        "Explica a un niño cómo se mantiene en pie una bicicleta.",
    ),
    "fr": (
        "Pourquoi ma pâte ne lève-t-elle pas en hiver ?", "Écris un message à l'hôtel pour dire que nous arrivons après minuit.",
        "Explique à un enfant comment un vélo tient debout.",
    ),
    "zh": ("为什么我的面团冬天发不起来？", "给酒店写一条消息，说我们午夜之后才到。", "给小孩子解释自行车为什么不会倒。"),
}  # fmt: skip
"""The same requests in each language: the shots of a translation."""
ECHO = 0.8
"""Similarity to the original, or to a shot, from which a text is no translation of it."""
_LABEL = re.compile(r"\b(text|translation|rewritten):", re.IGNORECASE)


def shots(instruction: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a text and what the instruction makes of it; none for an instruction that isn't one of ours."""
    code = next((code for code in LANGUAGES if INSTRUCTIONS[code] == instruction), None)
    return tuple(zip(ASKED, TOLD[code], strict=True)) if code else ()


def translated(original: str, text: str | None, instruction: str) -> bool:
    """Whether a text is what was asked for: neither empty nor broken, no echo of the original or of a shot, and in the language of the instruction."""
    if not text or not text.strip() or "\ufffd" in text or _LABEL.search(text):
        return False
    known = [original, *(told for _, told in shots(instruction))]
    if any(SequenceMatcher(None, text.casefold(), other.casefold(), autojunk=False).ratio() >= ECHO for other in known):
        return False
    code = next((code for code in LANGUAGES if INSTRUCTIONS[code] == instruction), None)
    return code is None or _classify()(text)[0] == code


@lru_cache(maxsize=1)
def _classify() -> Callable[[str], tuple[str, float]]:
    """Tells English and the languages above apart."""
    import py3langid

    py3langid.set_languages(["en", *LANGUAGES])
    classify: Callable[[str], tuple[str, float]] = py3langid.classify
    return classify


def _needs_teacher(text: str, rng: Random) -> NoReturn:
    raise DataError(
        "a translation is written by a teacher, in the augment stage of `charter synthesize`; it is no function of the text alone"
    )


INSTRUCTIONS = {
    code: f"Translate each text into {name}. Keep its meaning and its tone, and do not answer it." for code, name in LANGUAGES.items()
}
TRANSLATIONS = tuple(
    Family(f"translation:{code}", f"put into {name} by the teacher", "translation", _needs_teacher, instruction=INSTRUCTIONS[code])
    for code, name in LANGUAGES.items()
)
