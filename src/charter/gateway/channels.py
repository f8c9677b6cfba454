"""Which fields of requests and replies carry text. In a reply, every string of a message does unless it is known not to.

A list of fields that are scored would let a field that nobody thought of past the guard, so the list is of those that aren't.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from charter.gateway.errors import bad_request
from charter.records import Turn

Path = tuple[str | int, ...]
"""Keys from a choice down to a text, such as ("delta", "tool_calls", 0, "function", "arguments")."""

STRUCTURE = frozenset({"role", "id", "type", "index", "object", "format", "tool_call_id"})
"""Strings of a message that the server writes, not the model."""
MEDIA = frozenset({"image_url", "input_audio", "file", "video_url", "audio"})
"""Parts of a prompt's message that hold no text."""
CARRIERS = ("delta", "message", "text")
"""Fields of a choice that hold what the model wrote."""


def turns_of(body: dict[str, Any]) -> tuple[Turn, ...]:
    """The conversation of a chat request: every text of every message, parts of one message joined by a line break.

    Raises:
        HTTPProblem: 400 where `messages` is no list of objects with a role.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("`messages` must be a list of at least one message")
    turns = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request(f"`messages[{number}]` must be an object with a `role`")
        turns.append(Turn(message["role"], "\n".join(text for _, text in _leaves(message, (), MEDIA) if text)))
    return tuple(turns)


def texts(choice: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """The texts of a reply's choice, or of its delta, with the channel that each belongs to; in the order of the JSON."""
    for key in CARRIERS:
        if key in choice:
            yield from _leaves(choice[key], (key,), frozenset())


def replaced(choice: dict[str, Any], by: dict[Path, str]) -> dict[str, Any]:
    """A copy of a choice with its texts replaced; those not named become ""."""
    left = dict(by)  # each is put once, even where a channel stands twice in one delta
    return {key: _put(value, (key,), left) if key in CARRIERS else value for key, value in choice.items()}


def choice_of(index: int, path: Path, text: str) -> dict[str, Any]:
    """A streamed choice that carries one text and nothing else."""
    value: Any = text
    for step in reversed(path):
        item = {"index": step, **value} if isinstance(value, dict) else value
        value = {step: value} if isinstance(step, str) else [item]
    return {"index": index, "delta": {}, **value, "finish_reason": None}


def _leaves(value: Any, path: Path, skipped: frozenset[str]) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in skipped and not (key in STRUCTURE and isinstance(inner, str)):
                yield from _leaves(inner, (*path, key), skipped)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, _number(path, inner, number)), skipped)


def _put(value: Any, path: Path, by: dict[Path, str]) -> Any:
    if isinstance(value, str):
        return by.pop(path, "") if value else value
    if isinstance(value, dict):
        return {k: v if k in STRUCTURE and isinstance(v, str) else _put(v, (*path, k), by) for k, v in value.items()}
    if isinstance(value, list):
        return [_put(v, (*path, _number(path, v, n)), by) for n, v in enumerate(value)]
    return value


def _number(path: Path, item: Any, place: int) -> int:
    """The number of a list's item. In a stream its own `index` counts: a delta may hold the second tool call alone."""
    own = item.get("index") if path[:1] == ("delta",) and isinstance(item, dict) else None
    return own if isinstance(own, int) and not isinstance(own, bool) else place
