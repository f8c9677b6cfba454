"""Anthropic's POST /v1/messages. A block ends the message with the stop reason `refusal`, as Anthropic's own classifiers do."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from charter.gateway.body import dump
from charter.gateway.channels import Path, Reading
from charter.gateway.errors import HTTPProblem, bad_request
from charter.gateway.sse import frame
from charter.gateway.surface import JSON, Block, Unreadable
from charter.records import Turn

STRUCTURE = frozenset({
    "role", "id", "type", "object", "tool_use_id", "signature", "encrypted_content", "encrypted_index", "media_type", "model",
    "stop_reason", "file_id", "container_id",
})  # fmt: skip
SKIPPED = frozenset({"usage", "cache_control", "context_management", "container"})
READING = Reading(STRUCTURE, SKIPPED, frozenset({"input"}))
OPENED = frozenset({"text", "thinking"})
"""Texts of a block that its first event begins and its deltas continue."""
STOP = "refusal"
NO_USAGE = {"input_tokens": 0, "output_tokens": 0}


class Messages:
    """The surface. There is one choice: the message."""

    path = "/messages"
    key_header = "x-api-key"

    def turns(self, body: JSON) -> tuple[Turn, ...]:
        """The system prompt and every text of every message; tools' inputs and results too, but not their schemas."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise bad_request("`messages` must be a list of at least one message")
        turns = [Turn("system", _text(body["system"]))] if body.get("system") else []
        for number, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise bad_request(f"`messages[{number}]` must be an object with a `role`")
            turns.append(Turn(message["role"], _text(message)))
        return tuple(turns)

    def n_choices(self, body: JSON) -> int:
        return 1

    def parts(self, reply: JSON) -> list[JSON]:
        content = reply.get("content")
        if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
            raise Unreadable("the upstream's reply is no message, so it can't be scored; check --upstream")
        return [reply]

    def joined(self, reply: JSON, parts: list[JSON]) -> JSON:
        return parts[0]

    def texts(self, part: JSON) -> Iterator[tuple[Path, str]]:
        return READING.leaves(part)

    def replaced(self, part: JSON, by: Mapping[Path, str]) -> JSON:
        replaced: JSON = READING.put(part, (), dict(by))
        return replaced

    def cut(self, part: JSON, text: str | None) -> JSON:
        """What is left of a block of text stands; a tool's call, or its result, can't be used in part."""
        content = [b for b in part["content"] if b.get("type") in OPENED and b.get(b["type"])]
        said = [{"type": "text", "text": text}] if text is not None else []
        return {**part, "content": [*content, *said], "stop_reason": STOP, "stop_sequence": None}

    def blocked(self, body: JSON, block: Block, n_choices: int) -> JSON:
        content = [{"type": "text", "text": block.text}] if block.text is not None else []
        return {**_message(body), "content": content, "stop_reason": STOP, "charter": block.note}

    def blocked_stream(self, body: JSON, block: Block, n_choices: int) -> list[JSON]:
        return [{"type": "message_start", "message": _message(body)}, *self.stream().closing(0, block)]

    def stream(self) -> MessageStream:
        return MessageStream()


class MessageStream:
    """A streamed message. Remembers which block is open at the client, and which kinds its deltas have."""

    last = b""

    def __init__(self) -> None:
        self._kinds: dict[Path, str] = {}
        self._open: int | None = None
        self._next = 0
        self._usage: JSON = {"output_tokens": 0}

    def parts(self, event: JSON) -> list[tuple[int, JSON]]:
        if not isinstance(event.get("type"), str):
            raise Unreadable("the upstream sent an event without a type, so it can't be scored")
        if event["type"].startswith("content_block") and type(event.get("index")) is not int:
            raise Unreadable("the upstream sent a block without an index, so it can't be scored")
        return [(0, event)]

    def joined(self, event: JSON, parts: list[JSON]) -> JSON | None:
        return parts[0] if parts else None

    def deltas(self, part: JSON) -> Iterator[tuple[Path, str]]:
        field = part.get("delta") if part["type"] == "content_block_delta" else part.get("content_block")
        if isinstance(field, dict):
            for key, text in field.items():
                if isinstance(text, str) and self._goes_on(part, key):
                    path = ("content", part["index"], key)
                    if part["type"] == "content_block_delta":
                        self._kinds[path] = str(field.get("type"))
                    yield path, text

    def wholes(self, part: JSON) -> Iterator[str]:
        going_on = {(name, key) for name in ("delta", "content_block") for key in _keys(part.get(name)) if self._goes_on(part, key)}
        return (text for path, text in READING.leaves(part) if text and path[:2] not in going_on)

    def replaced(self, part: JSON, by: Mapping[Path, str], changed: bool) -> JSON | None:
        deltas = dict(self.deltas(part))
        if not deltas:
            return part
        name = "delta" if part["type"] == "content_block_delta" else "content_block"
        new = {str(path[-1]): by.get(path, "") for path in deltas}
        left = name == "content_block" or any(new.values()) or any(not text for text in deltas.values())
        return {**part, name: part[name] | new} if left else None

    def ends(self, part: JSON, open_paths: Iterable[Path]) -> list[Path]:
        if part["type"] == "content_block_stop":
            return [path for path in open_paths if path[:2] == ("content", part["index"])]
        return list(open_paths) if part["type"] == "message_delta" else []

    def finished(self, part: JSON) -> bool:
        return bool(part["type"] == "message_stop")

    def unfinished(self, part: JSON) -> JSON | None:
        text_block = (part.get("content_block") or {}).get("type") in OPENED
        return part if part["type"] == "content_block_delta" or text_block else None

    def rest(self, index: int, path: Path, text: str) -> JSON:
        key = str(path[-1])
        delta = {"type": self._kinds.get(path, f"{key}_delta"), key: text}
        return {"type": "content_block_delta", "index": path[1], "delta": delta}

    def closing(self, index: int, block: Block) -> list[JSON]:
        said: list[JSON] = [{"type": "content_block_stop", "index": self._open}] if self._open is not None else []
        if block.text is not None:
            place = ("content", self._next, "text")
            said += [{"type": "content_block_start", "index": self._next, "content_block": {"type": "text", "text": ""}}]
            said += [self.rest(0, place, block.text), {"type": "content_block_stop", "index": self._next}]
        stop = {"stop_reason": STOP, "stop_sequence": None}
        return [*said, {"type": "message_delta", "delta": stop, "usage": self._usage, "charter": block.note}, {"type": "message_stop"}]

    def sent(self, event: JSON) -> JSON:
        if event["type"] == "content_block_start":
            self._open, self._next = event["index"], max(self._next, event["index"] + 1)
        elif event["type"] == "content_block_stop":
            self._open = None
        elif event["type"] == "message_start" and isinstance(event.get("message"), dict):
            self._usage = {"output_tokens": (event["message"].get("usage") or {}).get("output_tokens", 0)}
        return event

    def frame(self, event: JSON, data: str | None = None) -> bytes:
        name = event["type"] if event["type"].isidentifier() else "message"
        return f"event: {name}\n".encode() + frame(dump(event) if data is None else data)

    def problem(self, problem: HTTPProblem) -> bytes:
        return self.frame(problem.anthropic_body)

    @staticmethod
    def _goes_on(part: JSON, key: str) -> bool:
        """Whether a string of a delta, or of a block's first event, goes on in later events."""
        if part["type"] == "content_block_delta":
            return key not in STRUCTURE
        return part["type"] == "content_block_start" and key in (*OPENED, "name")


def _text(value: Any) -> str:
    return "\n".join(text for _, text in READING.leaves(value) if text)


def _keys(value: Any) -> list[str]:
    return [key for key, inner in value.items() if isinstance(inner, str)] if isinstance(value, dict) else []


def _message(body: JSON) -> JSON:
    """A message without content."""
    model = body.get("model")
    return {
        "id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": model if isinstance(model, str) else "",
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": dict(NO_USAGE),
    }  # fmt: skip
