"""The language of a text that says nothing about it: py3langid's, where it is sure."""

from __future__ import annotations

from functools import cached_property
from typing import Any

UNKNOWN = "unknown"
SURE = 0.9
"""Normalised probability below which no language is named: short texts, codes and ciphers."""
LEAST = 12
"""Letters without which nothing is guessed."""


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
