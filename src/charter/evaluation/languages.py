"""The language of a text: what its row says, or what py3langid finds where it is sure."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

UNKNOWN = "unknown"
SURE = 0.9
"""Normalised probability below which no language is named: short texts, codes and ciphers."""
LEAST = 12
"""Letters without which nothing is guessed."""
NAMES = {
    "arabic": "ar", "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr", "german": "de", "hindi": "hi", "italian": "it",
    "japanese": "ja", "korean": "ko", "polish": "pl", "portuguese": "pt", "russian": "ru", "spanish": "es", "turkish": "tr",
}  # fmt: skip
"""As rows of public sets write them out."""


def code(said: object) -> str | None:
    """ISO 639 code of a language that a row names by a code ("pt-BR") or in English; None for anything else, such as "mixed"."""
    if not isinstance(said, str):
        return None
    by_code = re.fullmatch(r"([A-Za-z]{2,3})(?:[-_]\w+)?", said)
    return by_code[1].lower() if by_code else NAMES.get(said.lower())


class Languages:
    """Names languages; the model is loaded when it is first asked, once for each object: py3langid's own settings are global."""

    def __call__(self, text: str) -> str:
        """Two letters, or UNKNOWN."""
        if sum(c.isalpha() for c in text) < LEAST:
            return UNKNOWN
        language, probability = self._identifier.classify(text)
        return str(language) if probability >= SURE else UNKNOWN

    @cached_property
    def _identifier(self) -> Any:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
