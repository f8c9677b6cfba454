"""Server-sent events, byte by byte: bytes in, whole events out, however the network cut them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

DONE = "[DONE]"
"""The data that ends a stream of OpenAI's."""
_BREAK = re.compile(r"\r\n|\n|\r")  # not splitlines: text may hold U+2028


class EventTooLarge(Exception):
    """An event doesn't end within the limit."""


class EventReader:
    """Reads the `data` of each event. Comments and other fields are dropped: they could carry text past the guard."""

    def __init__(self, max_chars: int) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._max_chars = max_chars
        self._cr = ""
        self._line: list[str] = []
        self._data: list[str] = []
        self._size = 0

    def push(self, block: bytes) -> Iterator[str]:
        """Take bytes; gives the events that they complete.

        Raises:
            EventTooLarge: after the events before the one that is.
        """
        text = self._cr + self._decode(block)
        self._cr = "\r" if text.endswith("\r") else ""  # a line feed may follow in the next block
        return self._take(text[: len(text) - len(self._cr)])

    def flush(self) -> Iterator[str]:
        """The stream has ended; gives the event that was open: some upstreams leave the last blank line out."""
        return self._take(self._cr + self._decode(b"", True) + "\n\n")

    def _take(self, text: str) -> Iterator[str]:
        *lines, rest = _BREAK.split(text)
        for line in lines:
            self._grow(line)
            whole, self._line = "".join([*self._line, line]), []
            event = self._read(whole)
            if event:
                yield event
        self._grow(rest)
        self._line.append(rest)

    def _grow(self, part: str) -> None:
        self._size += len(part)
        if self._size > self._max_chars:
            raise EventTooLarge

    def _read(self, line: str) -> str | None:
        if line:
            name, _, value = line.partition(":")
            if name == "data":
                self._data.append(value.removeprefix(" "))
            return None
        event, self._data, self._size = "\n".join(self._data), [], 0
        return event


def frame(data: str) -> bytes:
    """One event, as it is sent."""
    return "".join(f"data: {line}\n" for line in data.split("\n")).encode() + b"\n"
