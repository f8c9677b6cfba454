"""OpenAI's POST /v1/responses. A block ends the response as `incomplete`, for the reason `content_filter`.

Its stream says everything several times: as deltas, then whole when a text, a part, an item and the response are done. What was
said before and passed is recognised and costs nothing; what differs is scored anew.
"""

from __future__ import annotations

import copy
import time
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
    "role", "id", "type", "object", "status", "call_id", "item_id", "response_id", "encrypted_content", "file_id", "container_id",
    "obfuscation", "phase", "model",
})  # fmt: skip
MEDIA = frozenset({"image_url", "input_audio", "file_data", "audio"})
REPLIES, PROMPTS = Reading(STRUCTURE, frozenset({"logprobs", "partial_image_b64"})), Reading(STRUCTURE, MEDIA)
VARIABLES = Reading(frozenset(), MEDIA)
"""Their names are the client's own."""
PLACES = ("output_index", "content_index", "summary_index")
ENDS = ("response.completed", "response.incomplete", "response.failed")
REASON = {"reason": "content_filter"}


class Responses:
    """The surface. There is one choice: the response. Turns that the upstream remembers are not seen."""

    path = "/responses"
    key_header = "authorization"

    def turns(self, body: JSON) -> tuple[Turn, ...]:
        """The instructions and every text of every item; tools' arguments and outputs too, but not their schemas."""
        given, template = body.get("input"), body.get("prompt")
        turns = [Turn("system", _text(body["instructions"]))] if body.get("instructions") else []
        if isinstance(template, dict) and template.get("variables"):
            turns.append(Turn("user", _text(template["variables"], VARIABLES)))
        if isinstance(given, str):
            turns.append(Turn("user", given))
        elif isinstance(given, list) and all(isinstance(item, dict) for item in given):
            turns += [Turn(_role(item), _text(item)) for item in given]
        elif given is not None:
            raise bad_request("`input` must be a string or a list of objects")
        if not turns:
            raise bad_request("the request holds no text: send `input`, as a string or a list of items")
        return tuple(turns)

    def n_choices(self, body: JSON) -> int:
        if body.get("background"):
            raise bad_request("`background` is not served: a reply that is fetched later would pass the guard by")
        return 1

    def parts(self, reply: JSON) -> list[JSON]:
        output = reply.get("output")
        if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
            raise Unreadable("the upstream's reply is no response, so it can't be scored; check --upstream")
        return [reply]

    def joined(self, reply: JSON, parts: list[JSON]) -> JSON:
        return parts[0]

    def texts(self, part: JSON) -> Iterator[tuple[Path, str]]:
        return REPLIES.leaves(part["output"], ("output",))

    def replaced(self, part: JSON, by: Mapping[Path, str]) -> JSON:
        return {**part, "output": REPLIES.put(part["output"], ("output",), dict(by))}

    def cut(self, part: JSON, text: str | None) -> JSON:
        """What is left of messages and reasoning stands; a tool's call, or its result, can't be used in part."""
        return {**part, **_ended(part["output"], text)}

    def blocked(self, body: JSON, block: Block, n_choices: int) -> JSON:
        return {**_response(body), **_ended([], block.text), "charter": block.note}

    def blocked_stream(self, body: JSON, block: Block, n_choices: int) -> list[JSON]:
        stream, created = self.stream(), {"type": "response.created", "response": _response(body)}
        stream.parts(created)
        return [created, *stream.closing(0, block)]

    def stream(self) -> ResponseStream:
        return ResponseStream()


class ResponseStream:
    """A streamed response. Remembers what it was opened with and which of its output has left."""

    last = b""

    def __init__(self) -> None:
        self._response: JSON = {}
        self._output: dict[int, JSON] = {}
        """The items as the client has them."""
        self._form: dict[Path, JSON] = {}
        """The last delta event of each channel."""
        self._number = 0

    def parts(self, event: JSON) -> list[tuple[int, JSON]]:
        if not isinstance(event.get("type"), str):
            raise Unreadable("the upstream sent an event without a type, so it can't be scored")
        if any(type(event.get(place, 0)) is not int for place in PLACES):
            raise Unreadable("the upstream sent an event whose place is no number, so it can't be scored")
        if isinstance(event.get("response"), dict) and not self._response:
            self._response = {key: value for key, value in event["response"].items() if key != "output"}
        return [(0, event)]

    def joined(self, event: JSON, parts: list[JSON]) -> JSON | None:
        return parts[0] if parts else None

    def deltas(self, part: JSON) -> Iterator[tuple[Path, str]]:
        if part["type"].endswith(".delta") and isinstance(part.get("delta"), str):
            path = (part["type"], *(part.get(place, -1) for place in PLACES))
            self._form[path] = {key: value for key, value in part.items() if key not in ("logprobs", "obfuscation")}
            yield path, part["delta"]

    def wholes(self, part: JSON) -> Iterator[str]:
        going_on = any(True for _ in self.deltas(part))
        value = {key: inner for key, inner in part.items() if not (key == "delta" and going_on)}
        if isinstance(value.get("response"), dict):  # the rest of it repeats the request
            value["response"] = {key: value["response"].get(key) for key in ("output", "error")}
        return (text for _, text in REPLIES.leaves(value) if text)

    def replaced(self, part: JSON, by: Mapping[Path, str], changed: bool) -> JSON | None:
        for path, text in self.deltas(part):
            new = {**part, "delta": by.get(path, "")} | ({"logprobs": []} if changed and "logprobs" in part else {})
            return new if new["delta"] or not text else None
        return part

    def ends(self, part: JSON, open_paths: Iterable[Path]) -> list[Path]:
        if part["type"].endswith(".done"):
            return [path for path in open_paths if path[1:2] == (part.get("output_index", -1),)]
        return list(open_paths) if part["type"] in ENDS else []

    def finished(self, part: JSON) -> bool:
        return part["type"] in ENDS

    def unfinished(self, part: JSON) -> JSON | None:
        return part if part["type"].endswith((".delta", ".added")) else None

    def rest(self, index: int, path: Path, text: str) -> JSON:
        return {**self._form[path], "delta": text}

    def closing(self, index: int, block: Block) -> list[JSON]:
        said: list[JSON] = []
        if block.text is not None:
            item = _ended([], block.text)["output"][0]
            place = {"item_id": item["id"], "output_index": 1 + max(self._output, default=-1), "content_index": 0}
            opened = {**item, "status": "in_progress", "content": []}
            said = [
                {"type": "response.output_item.added", "output_index": place["output_index"], "item": opened},
                {"type": "response.content_part.added", **place, "part": {**item["content"][0], "text": ""}},
                {"type": "response.output_text.delta", **place, "delta": block.text, "logprobs": []},
            ]
            self._form[("response.output_text.delta", place["output_index"], 0, -1)] = said[-1]
        output = [self._output[place] for place in sorted(self._output)]
        response = {**self._response, **_ended(output, block.text), "charter": block.note}
        return [*said, {"type": "response.incomplete", "response": response}]

    def sent(self, event: JSON) -> JSON:
        """Numbered anew, since events were dropped and put in; its text is noted for the response that a block ends."""
        place = event.get("output_index", -1)
        if event["type"] == "response.output_item.added" and isinstance(event.get("item"), dict):
            self._output[place] = copy.deepcopy(event["item"])
        elif event["type"] == "response.output_item.done" and isinstance(event.get("item"), dict):
            self._output[place] = event["item"]
        elif event["type"] == "response.output_text.delta" and place in self._output:
            _append(self._output[place], event.get("content_index", 0), event["delta"])
        numbered = {**event, "sequence_number": self._number}
        self._number += 1
        return numbered

    def frame(self, event: JSON, data: str | None = None) -> bytes:
        name = event["type"] if event["type"].replace(".", "_").isidentifier() else "message"
        return f"event: {name}\n".encode() + frame(dump(event) if data is None else data)

    def problem(self, problem: HTTPProblem) -> bytes:
        error = {"type": "error", **problem.body["error"], "sequence_number": self._number}
        return self.frame({**problem.body, **error, "error": problem.body["error"], "type": "error"})


def _append(item: JSON, place: int, text: str) -> None:
    """Put text at the end of a message's part."""
    content = item.setdefault("content", [])
    if not isinstance(content, list) or place > len(content):
        return
    if place == len(content):
        content.append({"type": "output_text", "text": "", "annotations": []})
    if isinstance(content[place], dict):
        content[place]["text"] = content[place].get("text", "") + text


def _ended(output: list[JSON], text: str | None) -> JSON:
    """The fields of a response that the guard ended: of its output the messages and reasoning, and the operator's words."""
    kept = [{**item, "status": "incomplete"} for item in map(_left, output) if item["content"] or item.get("summary")]
    if text is not None:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        kept.append({"type": "message", "id": f"msg_{uuid.uuid4().hex}", "status": "incomplete", "role": "assistant", "content": [part]})
    return {"status": "incomplete", "incomplete_details": dict(REASON), "error": None, "output": kept}


def _left(item: JSON) -> JSON:
    """An item without parts that hold nothing; logprobs would spell out the rest."""
    kept: JSON = {"content": []}
    if item.get("type") in ("message", "reasoning"):
        kept = {**item, "content": _parts(item.get("content"))}
        if "summary" in item:
            kept["summary"] = _parts(item["summary"])
    return kept


def _parts(value: Any) -> list[JSON]:
    parts = (
        [part for part in value if isinstance(part, dict) and (part.get("text") or part.get("refusal"))] if isinstance(value, list) else []
    )
    return [{**part, "annotations": [], "logprobs": []} if part.get("type") == "output_text" else part for part in parts]


def _role(item: JSON) -> str:
    if isinstance(item.get("role"), str):
        return str(item["role"])
    kind = item.get("type", "message")
    return "tool" if str(kind).endswith("_output") else "user" if kind == "message" else "assistant"


def _text(value: Any, reading: Reading = PROMPTS) -> str:
    return "\n".join(text for _, text in reading.leaves(value) if text)


def _response(body: JSON) -> JSON:
    """A response without output."""
    model = body.get("model")
    return {
        "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": int(time.time()), "status": "in_progress", "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "model": model if isinstance(model, str) else "", "output": [],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": None, "top_p": None,
    }  # fmt: skip
