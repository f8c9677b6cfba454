"""OpenAI's surfaces whose replies are choices: /v1/chat/completions and /v1/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from charter.gateway.body import dump
from charter.gateway.channels import Path, Reading
from charter.gateway.errors import HTTPProblem, bad_request
from charter.gateway.sse import DONE, frame
from charter.gateway.surface import JSON, Block, Unreadable
from charter.records import Turn

MOST_CHOICES = 128
"""OpenAI's own limit of `n`."""
STRUCTURE = frozenset({"role", "id", "type", "index", "object", "format", "tool_call_id"})
MEDIA = frozenset({"image_url", "input_audio", "file", "video_url", "audio"})
REPLIES, PROMPTS = Reading(STRUCTURE), Reading(STRUCTURE, MEDIA)
CARRIERS = ("delta", "message", "text")
"""Fields of a choice that hold what the model wrote."""
ENVELOPE = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "obfuscation", "choices"})
"""Top-level fields that say nothing by themselves: a chunk of nothing else need not be sent."""


class Chat:
    """POST /v1/chat/completions."""

    path = "/chat/completions"
    key_header = "authorization"
    id_prefix, whole_object, chunk_object = "chatcmpl-", "chat.completion", "chat.completion.chunk"
    carrier: Path = ("message", "content")
    delta_carrier: Path = ("delta", "content")

    def turns(self, body: JSON) -> tuple[Turn, ...]:
        """Every text of every message, parts of one message joined by a line break. Tool schemas are not read."""
        return turns_of(body)

    def n_choices(self, body: JSON) -> int:
        return _whole_number(body)

    def parts(self, reply: JSON) -> list[JSON]:
        choices = reply.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise Unreadable("the upstream's reply is no completion, so it can't be scored; check --upstream")
        return choices

    def joined(self, reply: JSON, parts: list[JSON]) -> JSON:
        return {**reply, "choices": parts}

    def texts(self, part: JSON) -> Iterator[tuple[Path, str]]:
        return texts(part)

    def replaced(self, part: JSON, by: Mapping[Path, str]) -> JSON:
        return replaced(part, by)

    def cut(self, part: JSON, text: str | None) -> JSON:
        if text is not None:
            said = _text_at(part, self.carrier)
            part = _put_at(part, self.carrier, f"{said}\n\n{text}" if said else text)
        return {**part, "logprobs": None, "finish_reason": "content_filter"}

    def blocked(self, body: JSON, block: Block, n_choices: int) -> JSON:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        choices = [self.empty_choice(i, block.text or "") for i in range(n_choices)]
        return {**self._envelope(body, self.whole_object), "choices": choices, "usage": usage, "charter": block.note}

    def blocked_stream(self, body: JSON, block: Block, n_choices: int) -> list[JSON]:
        stream, envelope = self.stream(), self._envelope(body, self.chunk_object)
        events: list[JSON] = []
        for index in range(n_choices):
            events += [{"choices": [{"index": index, **self.opening(), "logprobs": None, "finish_reason": None}]}]
            events += stream.closing(index, block)
        return [envelope | event for event in events]

    def empty_choice(self, index: int, text: str) -> JSON:
        """A choice of a blocked prompt's answer."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": "content_filter"}

    def opening(self) -> JSON:
        """What the first chunk of a choice says."""
        return {"delta": {"role": "assistant", "content": ""}}

    def stream(self) -> ChoiceStream:
        return ChoiceStream(self.delta_carrier)

    def _envelope(self, body: JSON, kind: str) -> JSON:
        model = body.get("model")
        model = model if isinstance(model, str) else ""
        return {"id": f"{self.id_prefix}{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


class Completions(Chat):
    """POST /v1/completions: a prompt of text and its continuation."""

    path = "/completions"
    id_prefix, whole_object, chunk_object = "cmpl-", "text_completion", "text_completion"
    carrier: Path = ("text",)
    delta_carrier: Path = ("text",)

    def turns(self, body: JSON) -> tuple[Turn, ...]:
        """Each prompt is a turn, and so is the text that is to follow the reply."""
        prompts, suffix = _prompts(body), body.get("suffix")
        if suffix is not None and not isinstance(suffix, str):
            raise bad_request("`suffix` must be a string")
        return tuple(Turn("user", text) for text in [*prompts, *([suffix] if suffix else [])])

    def n_choices(self, body: JSON) -> int:
        n = _whole_number(body) * len(_prompts(body))
        if n > MOST_CHOICES:
            raise bad_request(f"`n` times the prompts must be at most {MOST_CHOICES}")
        return n

    def empty_choice(self, index: int, text: str) -> JSON:
        return {"index": index, "text": text, "logprobs": None, "finish_reason": "content_filter"}

    def opening(self) -> JSON:
        return {"text": ""}


class ChoiceStream:
    """A stream of chunks with choices. Remembers the envelope of the last one, for those that are made here."""

    last = frame(DONE)

    def __init__(self, carrier: Path) -> None:
        self._carrier = carrier
        self._envelope: JSON = {}
        self._spoken: set[int] = set()
        """Choices of which some of the text has left."""

    def parts(self, event: JSON) -> list[tuple[int, JSON]]:
        choices = event.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(c, dict) and type(c.get("index", 0)) is int for c in choices):
            raise Unreadable("the upstream sent an event that is no chunk of a completion, so it can't be scored")
        if choices:
            self._envelope = {key: value for key, value in event.items() if key in ENVELOPE - {"obfuscation", "choices"}}
        return [(choice.get("index", 0), choice) for choice in choices]

    def joined(self, event: JSON, parts: list[JSON]) -> JSON | None:
        says = bool(parts) or any(value is not None for key, value in event.items() if key not in ENVELOPE)
        return {**event, "choices": parts} if says else None

    def deltas(self, part: JSON) -> Iterator[tuple[Path, str]]:
        return texts(part)

    def wholes(self, part: JSON) -> Iterator[str]:
        return iter(())

    def replaced(self, part: JSON, by: Mapping[Path, str], changed: bool) -> JSON | None:
        kept = replaced(part, by)
        if changed and "logprobs" in kept:
            kept = {**kept, "logprobs": None}
        return kept if _carries(kept) else None

    def ends(self, part: JSON, open_paths: Iterable[Path]) -> list[Path]:
        return []

    def finished(self, part: JSON) -> bool:
        return part.get("finish_reason") is not None

    def unfinished(self, part: JSON) -> JSON | None:
        kept = {**part, "finish_reason": None}
        return kept if _carries(kept) else None

    def rest(self, index: int, path: Path, text: str) -> JSON:
        return {**self._envelope, "choices": [choice_of(index, path, text)]}

    def closing(self, index: int, block: Block) -> list[JSON]:
        said: list[JSON] = []
        if block.text is not None:
            said = [self.rest(index, self._carrier, ("\n\n" if index in self._spoken else "") + block.text)]
        silent: JSON = {"text": ""} if self._carrier == ("text",) else {"delta": {}}
        closing = {"index": index, **silent, "logprobs": None, "finish_reason": "content_filter"}
        return [*said, {**self._envelope, "choices": [closing], "charter": block.note}]

    def sent(self, event: JSON) -> JSON:
        for choice in event.get("choices") or []:
            if any(path == self._carrier and text for path, text in texts(choice)):
                self._spoken.add(choice.get("index", 0))
        return event

    def frame(self, event: JSON, data: str | None = None) -> bytes:
        return frame(dump(event) if data is None else data)

    def problem(self, problem: HTTPProblem) -> bytes:
        return frame(dump(problem.body))


def turns_of(body: JSON) -> tuple[Turn, ...]:
    """The conversation of a request in `messages`.

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
        turns.append(Turn(message["role"], "\n".join(text for _, text in PROMPTS.leaves(message) if text)))
    return tuple(turns)


def texts(choice: JSON) -> Iterator[tuple[Path, str]]:
    """The texts of a reply's choice, or of its delta."""
    for key in CARRIERS:
        if key in choice:
            yield from REPLIES.leaves(choice[key], (key,))


def replaced(choice: JSON, by: Mapping[Path, str]) -> JSON:
    """A copy of a choice with its texts replaced; those not named become ""."""
    left = dict(by)  # each is put once, even where a channel stands twice in one delta
    return {key: REPLIES.put(value, (key,), left) if key in CARRIERS else value for key, value in choice.items()}


def choice_of(index: int, path: Path, text: str) -> JSON:
    """A streamed choice that carries one text and nothing else."""
    value: Any = text
    for step in reversed(path):
        item = {"index": step, **value} if isinstance(value, dict) else value
        value = {step: value} if isinstance(step, str) else [item]
    return {"index": index, **({} if path[0] == "text" else {"delta": {}}), **value, "finish_reason": None}


def _prompts(body: JSON) -> list[str]:
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list) and 1 <= len(prompt) <= MOST_CHOICES and all(isinstance(p, str) for p in prompt):
        return prompt
    raise bad_request(f"`prompt` must be a string or a list of 1 to {MOST_CHOICES} strings; token numbers can't be scored")


def _whole_number(body: JSON) -> int:
    n = body.get("n")
    if n is None:
        return 1
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST_CHOICES:
        raise bad_request(f"`n` must be a whole number from 1 to {MOST_CHOICES}")
    return n


def _text_at(part: Any, path: Path) -> str:
    for step in path:
        part = part.get(step) if isinstance(part, dict) else None
    return part if isinstance(part, str) else ""


def _put_at(part: JSON, path: Path, text: str) -> JSON:
    key, *rest = path
    inner = part.get(str(key))
    return {**part, str(key): _put_at(inner if isinstance(inner, dict) else {}, tuple(rest), text) if rest else text}


def _carries(value: Any) -> bool:
    """Whether anything is left in a choice besides its place."""
    if isinstance(value, dict):
        return any(_carries(inner) for key, inner in value.items() if key != "index")
    if isinstance(value, list):
        return any(map(_carries, value))
    return value is not None and value != ""
