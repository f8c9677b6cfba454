"""Which strings of a JSON value are text. In a reply, every string is unless it is known not to be.

A list of fields that are scored would let a field that nobody thought of past the guard, so the list is of those that aren't.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
"""Keys down to a text, such as ("delta", "tool_calls", 0, "function", "arguments")."""

SEALED = {("data", "base64"), ("data", "redacted_thinking"), ("result", "image_generation_call")}
"""Keys that hold bytes in objects of a type, or what the server sealed."""


@dataclass(frozen=True)
class Reading:
    """How values of one surface are read."""

    structure: frozenset[str]
    """Keys whose strings the server writes, not the model: ids, types."""
    skipped: frozenset[str] = frozenset()
    """Keys that hold no text at all: images, sound."""
    whole: frozenset[str] = frozenset()
    """Keys whose objects are the model's own JSON: one text each, since its keys and the parts of a word across them count too."""

    def leaves(self, value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
        """The texts of a value with the channel that each belongs to, in the order of the JSON."""
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            for key, inner in value.items():
                if self._holds_text(key, inner, value):
                    yield from [((*path, key), _dumped(inner))] if self._is_whole(key, inner) else self.leaves(inner, (*path, key))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                yield from self.leaves(inner, (*path, _number(path, inner, number)))

    def put(self, value: Any, path: Path, by: dict[Path, str]) -> Any:
        """A copy with its texts replaced, each taken out of `by`; those not named become ""."""
        if isinstance(value, str):
            return by.pop(path, "") if value else value
        if isinstance(value, dict):
            return {key: self._put_in(key, inner, value, path, by) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.put(inner, (*path, _number(path, inner, n)), by) for n, inner in enumerate(value)]
        return value

    def _put_in(self, key: str, inner: Any, value: dict[str, Any], path: Path, by: dict[Path, str]) -> Any:
        if not self._holds_text(key, inner, value):
            return inner
        if self._is_whole(key, inner):
            return inner if by.pop((*path, key), "") == _dumped(inner) else {}
        return self.put(inner, (*path, key), by)

    def _holds_text(self, key: str, inner: Any, value: dict[str, Any]) -> bool:
        kind = value.get("type")
        if key in self.skipped or (isinstance(kind, str) and (key, kind) in SEALED):
            return False
        return not (key in self.structure and isinstance(inner, str))

    def _is_whole(self, key: str, inner: Any) -> bool:
        return key in self.whole and isinstance(inner, dict)


def _dumped(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) if value else ""


def _number(path: Path, item: Any, place: int) -> int:
    """The number of a list's item. In a stream its own `index` counts: a delta may hold the second tool call alone."""
    own = item.get("index") if path[:1] == ("delta",) and isinstance(item, dict) else None
    return own if isinstance(own, int) and not isinstance(own, bool) else place
