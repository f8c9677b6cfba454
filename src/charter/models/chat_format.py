"""A conversation as the model that answers it reads it: its own chat template, its own tokens.

Only the template's marks become control tokens; text from outside never does, though it spells them out. Unlike the guard's own
encoding (`backbone.Encoder`) a text is encoded as a whole and no disguise is undone, because that is what the model reads.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from charter.errors import BackboneError
from charter.models.encoder import Encoder, Piece
from charter.models.segments import Segmenter
from charter.records import Turn

T = TypeVar("T")
ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
"""A role is written into the template's marks, so no other is taken from outside."""
_PLACE = re.compile("\ue000([0-9]+)\ue000")


class ChatFormat:
    """The template and the vocabulary of a tokenizer, both ways."""

    def __init__(self, tokenizer: Any, encoder: Encoder) -> None:
        """`encoder` has made the tokenizer spell out control tokens in text.

        Raises:
            BackboneError: the tokenizer has no chat template.
        """
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        if not tokenizer.chat_template:
            raise BackboneError("the model's tokenizer has no chat template, so it can't answer a conversation; choose an instructed model")
        self._tokenizer, self._raw = tokenizer, tokenizer.backend_tokenizer
        self._bytes: dict[str, int] = {character: byte for byte, character in bytes_to_unicode().items()}  # type: ignore[no-untyped-call]
        added = self._raw.get_added_tokens_decoder()
        self._added: dict[int, bytes] = {number: b"" if token.special else token.content.encode() for number, token in added.items()}
        self._marks: dict[str, int] = {token.content: number for number, token in added.items() if token.special}
        self.ending = encoder.ending().ids
        """What closes a turn that the model was not let close itself."""
        self.stops = frozenset({tokenizer.eos_token_id, *(self.ending if len(self.ending) == 1 else ())})
        """Tokens with which the model ends its turn."""

    def turns(self, turns: Sequence[Turn]) -> tuple[list[list[Piece]], list[int]]:
        """The pieces of each turn, and the ids of the marks that open the reply.

        Raises:
            BackboneError: the template doesn't take such turns.
        """
        marks = self._rendered([turn.role for turn in turns])
        pieces, before = [], marks[0]
        for turn, after in zip(turns, marks[1:], strict=True):
            # The first mark behind a text ends its turn: there the whole turn has been read, and it is scored.
            pieces.append([Piece(tuple(before), None), *self._text(turn.content), Piece(tuple(after[:1]), "")])
            before = after[1:]
        return pieces, before

    def bytes_of(self, number: int) -> bytes:
        """What a token says: part of a character perhaps; nothing where it is a control token."""
        if number in self._added:
            return self._added[number]
        return bytes(self._bytes[character] for character in self._raw.id_to_token(number))

    def _text(self, text: str) -> list[Piece]:
        """The text as the model reads it, in segments. Characters that its vocabulary lacks are gone, as they are for the model."""
        speech, segments = Speech(self), Aligned[int]()
        found: list[tuple[str, list[tuple[str, int]]]] = []
        for number in self._raw.encode(text, add_special_tokens=False).ids:
            found += segments.push(speech.push(number), number)
        found += segments.flush(speech.flush())
        return [Piece(tuple(number for _, number in tokens), segment) for segment, tokens in found]

    def _rendered(self, roles: Sequence[str]) -> list[list[int]]:
        """The marks before, between and behind the texts of these turns, as ids."""
        from jinja2 import TemplateError

        if strange := [role for role in roles if role not in ROLES]:
            raise BackboneError(f"{strange[0][:32]!r} is no role that the model takes; it is one of {', '.join(sorted(ROLES))}")
        messages = [{"role": role, "content": f"\ue000{n}\ue000"} for n, role in enumerate(roles)]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, ValueError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackboneError(f"the model's chat template does not take this conversation ({reason})") from error
        parts = _PLACE.split(text)
        if parts[1::2] != [str(n) for n in range(len(roles))]:
            raise BackboneError(
                "the model's chat template leaves out turns or says them twice, so they can't be scored; choose another model"
            )
        return [self._mark(part) for part in parts[::2]]

    def _mark(self, text: str) -> list[int]:
        """The template's own text, in which control tokens are meant as such."""
        ids: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, self._marks)) + ")", text) if self._marks else [text]:
            ids += [self._marks[part]] if part in self._marks else self._raw.encode(part, add_special_tokens=False).ids
        return ids


class Speech:
    """Tokens to text as they come: a character is said by the token that holds its last byte."""

    def __init__(self, chat: ChatFormat) -> None:
        self._chat = chat
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, number: int) -> str:
        """What a token completes."""
        return self._decoder.decode(self._chat.bytes_of(number))

    def flush(self) -> str:
        """The last token has come; what is left of a broken character."""
        return self._decoder.decode(b"", True)


class Aligned(Generic[T]):
    """Tokens, each with the text it says, gathered by the segments of that text. A token belongs where its last character stands;
    one that says nothing yet belongs to what is said next."""

    def __init__(self) -> None:
        self._segmenter = Segmenter()
        self._open: list[tuple[str, T]] = []
        self._at = 0
        """Where the first open token starts, counted from the end of the last segment that was given out: 0 or below."""

    def push(self, text: str, token: T) -> list[tuple[str, list[tuple[str, T]]]]:
        """Take a token; gives the segments that it completes, each with its tokens."""
        self._open.append((text, token))
        return [(segment, self._within(segment)) for segment in self._segmenter.push(text)]

    def flush(self, rest: str = "") -> list[tuple[str, list[tuple[str, T]]]]:
        """No more tokens will come, but perhaps a rest of text, which is the last token's; gives what is open."""
        if rest:
            text, token = self._open.pop()
            self._open.append((text + rest, token))
        found = [(segment, self._within(segment)) for segment in self._segmenter.push(rest)]
        found += [(segment, self._open) for segment in self._segmenter.flush()]
        self._open = []
        return found

    def _within(self, segment: str) -> list[tuple[str, T]]:
        """The open tokens that end within this segment, the first one that is not given out yet."""
        end, taken = self._at, 0
        for number, (text, _) in enumerate(self._open, 1):
            start, end = end, end + len(text)
            if end > len(segment) or start == len(segment):
                break
            taken, self._at = number, end
        given, self._open = self._open[:taken], self._open[taken:]
        self._at -= len(segment)
        return given
