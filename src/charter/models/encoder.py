"""Text to the tokens that the scorers read, a segment at a time (`segments`), so that whole and streamed texts have the same.

Text from outside never becomes a control token; the marks of the chat format are added apart, by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from charter.errors import BackboneError
from charter.models.decipher import deciphered
from charter.models.reading import read, undone
from charter.models.segments import cut
from charter.records import Exchange, Turn, View


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens: the marks around a turn, or one segment of its text."""

    ids: tuple[int, ...]
    text: str | None
    """The original text of a segment; None for the marks of the chat format; "" for the mark that ends a turn."""
    undone: bool = False
    """Whether it is of a turn that nobody wrote: what the one before it says, which is in disguise."""


class Encoder:
    """Text to token ids, a segment at a time, and conversations to pieces."""

    def __init__(self, tokenizer: Any) -> None:
        """`tokenizer` is a fast tokenizer of transformers with a byte-level pre-tokenizer.

        Raises:
            BackboneError: it is something else.
        """
        raw = getattr(tokenizer, "backend_tokenizer", None)
        if raw is None or "ByteLevel" not in str(raw.pre_tokenizer):
            raise BackboneError(
                "the backbone's tokenizer is not byte-level; Charter's exact streaming needs one (GPT-2, Llama 3, Qwen, SmolLM ...)"
            )
        raw.encode_special_tokens = True  # control tokens in text are spelled out, never obeyed
        self._raw = raw
        start, end = (tokenizer.convert_tokens_to_ids(mark) for mark in ("<|im_start|>", "<|im_end|>"))
        chatml = isinstance(start, int) and isinstance(end, int) and start != end
        self._start = (start,) if chatml else self._plain("\n\n")
        self._end = (end,) if chatml else self._plain("\n")
        self.segment = lru_cache(maxsize=65_536)(self._segment)
        self.deciphered = lru_cache(maxsize=4_096)(self._deciphered)

    def opening(self, role: str) -> Piece:
        """The marks before a turn's text."""
        return Piece((*self._start, *self._plain(role[:32] + "\n")), None)

    def ending(self) -> Piece:
        """The mark after a turn's text. It is scored: there the whole turn has been read."""
        return Piece(self._end, "")

    def turn(self, turn: Turn) -> list[Piece]:
        """All pieces of a closed turn."""
        return [self.opening(turn.role), *(Piece(self.segment(s), s) for s in cut(turn.content)), self.ending()]

    def prompt(self, turns: Sequence[Turn]) -> list[list[Piece]]:
        """All pieces of closed turns; after a turn that is in disguise as a whole comes another with what it says (`decipher`)."""
        found = []
        for turn in turns:
            found.append(self.turn(turn))
            if (said := self.deciphered(turn.content)) is not None:
                found.append([replace(piece, undone=True) for piece in self.turn(Turn(turn.role, said))])
        return found

    def seen(self, exchange: Exchange, view: View) -> list[tuple[list[Piece], bool]]:
        """The pieces of each turn that a view reads, as `prompt` gives them, and whether it scores them: the prompt's, or the reply's alone."""
        if view == "prompt":
            return [(pieces, True) for pieces in self.prompt(exchange.prompt)]
        *before, reply = exchange.seen(view)
        return [*((pieces, False) for pieces in self.prompt(before)), (self.turn(reply), True)]

    def texts(self, piece: Piece) -> list[str]:
        """The original text behind each token of a piece, each character at the token that holds its last byte; where the
        segment was not read as it stands, all of it at the last token. Concatenated, they give the text back."""
        if piece.undone:
            return [""] * len(piece.ids)
        if not piece.text or read(piece.text) != piece.text:
            return [""] * (len(piece.ids) - 1) + [piece.text or ""]
        spans = self._raw.encode(piece.text, add_special_tokens=False).offsets or [(0, 0)] * len(piece.ids)
        # Offsets may drop leading spaces, and repeat a character whose bytes are split over tokens: it waits for the last of them.
        cuts = [0]
        for (_, end), (following, _) in pairwise(spans):
            cuts.append(max(cuts[-1], min(end, following)))
        cuts.append(len(piece.text))
        return [piece.text[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]

    def _segment(self, segment: str) -> tuple[int, ...]:
        # Some vocabularies lack control bytes and drop them; a segment of nothing else still gets tokens, and so a score.
        return self._plain(read(segment)) or self._plain(segment) or self._plain("\ufffd")

    def _deciphered(self, text: str) -> str | None:
        plain = undone(text)
        found = (deciphered(form, lambda part: len(self._plain(part))) for form in (text, plain))
        return next((said for said in found if said is not None and undone(said) != plain), None)

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(self._raw.encode(text, add_special_tokens=False).ids)
