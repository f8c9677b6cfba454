"""Cut text where no tokenizer looks across, so that streamed and whole texts give the same tokens.

A segment is white space followed by a word: the cut falls where a non-space is followed by white space, a boundary that no
byte-level pre-tokenizer crosses, and in longer runs after every 64th character. Each segment is encoded on its own, in
training, batch and streaming alike; an open segment is held until it ends or `flush` comes.
"""

from __future__ import annotations

import re

LONGEST = 64
"""Characters in a segment: the most that is ever held back unscored."""
_PIECE = re.compile(r"\s*\S+|\s+")


class Segmenter:
    """Cuts a stream of text into segments; concatenated, they give the text back."""

    def __init__(self) -> None:
        self._open = ""

    @property
    def held(self) -> str:
        """The open segment: received, not yet given out."""
        return self._open

    def push(self, text: str) -> list[str]:
        """Take a piece of text; returns the segments that it completes."""
        if not text:
            return []
        pieces = cut(self._open + text)
        self._open = pieces.pop()
        return pieces

    def flush(self) -> list[str]:
        """The text has ended; returns the open segment, if there is one."""
        rest, self._open = self._open, ""
        return [rest] if rest else []


def cut(text: str) -> list[str]:
    """All segments of a whole text."""
    pieces: list[str] = []
    for match in _PIECE.finditer(text):
        piece = match.group()
        pieces += [piece] if len(piece) <= LONGEST else [piece[i : i + LONGEST] for i in range(0, len(piece), LONGEST)]
    return pieces
