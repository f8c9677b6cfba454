"""GET /openapi.json: every surface as an OpenAPI document. It says what Charter reads and answers; other fields pass to the upstream and back."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from charter import __version__

JSON = dict[str, Any]
TEXT: JSON = {"type": "string"}
NUMBER: JSON = {"type": "number"}
WHOLE: JSON = {"type": "integer"}
FLAG: JSON = {"type": "boolean"}
ANY: JSON = {}
ACTION: JSON = {"enum": ["allow", "block"]}


def document() -> JSON:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Charter's gateway", "version": __version__, "description": "A guard in front of a language model."},
        "paths": _paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"header": []}],
    }


async def openapi(request: Request) -> Response:
    """The surface itself."""
    return JSONResponse(document())


def _paths() -> JSON:
    identity = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": {"post": _generates("OpenAI's chat completions, guarded", "ChatRequest", "ChatReply")},
        "/v1/completions": {"post": _generates("OpenAI's completions, guarded", "CompletionRequest", "ChatReply")},
        "/v1/responses": {"post": _generates("OpenAI's responses, guarded", "ResponsesRequest", "Response")},
        "/v1/messages": {"post": _generates("Anthropic's messages, guarded", "MessagesRequest", "Message", "AnthropicError")},
        "/v1/moderations": {"post": _asks("Judge texts; categories are the restricted clauses", "ModerationRequest", "Moderation")},
        "/v1/guard/check": {"post": _asks("Judge a conversation without generation", "CheckRequest", "Check")},
        "/v1/guard/sessions": {
            "post": _asks("Judge a prompt and open a guarded reply", "CheckRequest", "Session", {"201": _json("Session", "open")}, ("429",))
        },
        "/v1/guard/sessions/{id}": {
            "parameters": [identity],
            "post": _asks("Feed a guarded reply", "Piece", "Fed", more=("404",)),
            "delete": _gets("Close a guarded reply", _json("Fed"), ("404", "500")),
        },
        "/v1/checks": {"post": _asks("The same question in NeMo Guardrails' form", "CheckRequest", "NemoCheck")},
        "/beta/litellm_basic_guardrail_api": {"post": _asks("LiteLLM's generic guardrail", "LiteLLMRequest", "LiteLLMAnswer")},
        "/v1/models": {"get": _gets("The upstream's models", _json("Anything"), ("502",))},
        "/healthz": {"get": _gets("That the gateway runs, and what it counted", _json("Health"))},
        "/readyz": {"get": {**_gets("Whether the upstream answers", _json("Ready")), "responses": _ready()}},
        "/metrics": {"get": _gets("What Prometheus scrapes", {"description": "metrics", "content": {"text/plain": {}}})},
        "/openapi.json": {"get": _gets("This document", _json("Anything"))},
    }


def _generates(summary: str, asked: str, answer: str, error: str = "Error") -> JSON:
    """An operation that the upstream answers: with its own statuses too, which is what `default` stands for."""
    answers = {
        "200": {"description": "the reply as far as it passes", "content": {"application/json": _ref(answer), "text/event-stream": {}}},
        **_errors(("400", "401", "408", "413", "415", "429", "500", "502"), error),
        "default": {"description": "what the upstream answered", "content": {"application/json": {}, "*/*": {}}},
    }
    return {"summary": summary, "requestBody": _body(asked), "responses": answers}


def _asks(summary: str, asked: str, answer: str, also: JSON | None = None, more: tuple[str, ...] = ()) -> JSON:
    """An operation that the guard answers by itself."""
    errors = _errors(("400", "401", "408", "413", "415", "429", "500", *more))
    return {"summary": summary, "requestBody": _body(asked), "responses": {"200": _json(answer), **(also or {}), **errors}}


def _gets(summary: str, answer: JSON, more: tuple[str, ...] = ()) -> JSON:
    return {"summary": summary, "responses": {"200": answer, **_errors(("401", "429", *more))}}


def _ready() -> JSON:
    return {"200": _json("Ready", "ready"), "503": _json("Ready", "the upstream does not answer, or refuses our key")}


def _errors(statuses: tuple[str, ...], schema: str = "Error") -> JSON:
    return {status: _json(schema, STATUSES[status]) for status in statuses}


def _body(schema: str) -> JSON:
    return {"required": True, "content": {"application/json": _ref(schema)}}


def _json(schema: str, said: str = "done") -> JSON:
    return {"description": said, "content": {"application/json": _ref(schema)}}


def _ref(name: str) -> JSON:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _object(required: str = "", **properties: JSON) -> JSON:
    """An object of these and any other fields; those required are named, parted by spaces."""
    return {"type": "object", "properties": properties, **({"required": required.split()} if required else {})}


def _list(of: JSON, least: int = 0, most: int | None = None) -> JSON:
    return {"type": "array", "items": of, "minItems": least, **({"maxItems": most} if most else {})}


def _maybe(schema: JSON) -> JSON:
    return {"anyOf": [schema, {"type": "null"}]}


STATUSES = {
    "400": "the request can't be read, or is blocked and blocks are errors", "401": "a key is needed", "404": "there is no such session",
    "408": "the request came too slowly", "413": "the request is too large",
    "415": "the request is compressed", "429": "too many; Retry-After says when", "500": "it could not be scored, so nothing leaves",
    "502": "the upstream can't be reached, or its reply can't be read",
}  # fmt: skip
MESSAGE = _object("role", role=TEXT, content={"anyOf": [TEXT, _list(_object()), {"type": "null"}]})
MESSAGES = _list(MESSAGE, 1, 2_048)
CHOICES = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 128}, {"type": "null"}]}
GUARD = _object("name hash", name=TEXT, hash=TEXT)
VERDICT: JSON = {"flagged": FLAG, "score": NUMBER, "clause": _maybe(TEXT), "position": _maybe(WHOLE)}
SCHEMAS: JSON = {
    "Anything": {"type": "object"},
    "Error": _object("error", error=_object("message type code", message=TEXT, type=TEXT, param=ANY, code=_maybe(TEXT))),
    "AnthropicError": _object("type error", type={"const": "error"}, error=_object("type message", type=TEXT, message=TEXT)),
    "ChatRequest": _object("messages", model=TEXT, messages=MESSAGES, stream=FLAG, n=CHOICES),
    "ChatReply": _object("choices", choices=_list(_object("index", index=WHOLE, finish_reason=ANY))),
    "CompletionRequest": _object(
        "prompt", model=TEXT, prompt={"anyOf": [TEXT, _list(TEXT, 1, 128)]}, suffix=_maybe(TEXT), stream=FLAG, n=CHOICES
    ),
    "ResponsesRequest": _object("input", model=TEXT, input={"anyOf": [TEXT, MESSAGES]}, instructions=_maybe(TEXT), stream=FLAG),
    "Response": _object("output", output=_list(_object())),
    "MessagesRequest": _object("messages", model=TEXT, messages=MESSAGES, system={"anyOf": [TEXT, _list(_object())]}, max_tokens=WHOLE, stream=FLAG),
    "Message": _object("content", content=_list(_object()), stop_reason=_maybe(TEXT)),
    "ModerationRequest": _object("input", input={"anyOf": [TEXT, _list(TEXT, 1, 256)]}),
    "Moderation": _object(
        "id model results", id=TEXT, model=TEXT,
        results=_list(_object("flagged categories category_scores", flagged=FLAG, categories=_object(), category_scores=_object()), 1),
    ),
    "CheckRequest": {"oneOf": [
        _object("messages", messages=MESSAGES) | {"not": {"required": ["input"]}},
        _object("input", input=TEXT) | {"not": {"required": ["messages"]}},
    ]},
    "Check": _object(
        "object valid flagged score clause position stage action guard", **VERDICT, object={"const": "guard.check"}, valid=FLAG,
        stage={"enum": ["prompt", "reply"]}, action=ACTION, categories=_list(_object("name score", name=TEXT, score=NUMBER)), guard=GUARD,
    ),
    "NemoCheck": _object("status content", status={"enum": ["passed", "blocked"]}, content=TEXT, rail=TEXT),
    "Session": _object("object id stage flagged action guard", **VERDICT, object={"const": "guard.session"}, id=_maybe(TEXT), action=ACTION, guard=GUARD),
    "Piece": _object("text", text=TEXT),
    "Fed": _object("flagged action", **VERDICT, action=ACTION),
    "LiteLLMRequest": _object(
        "input_type", input_type={"enum": ["request", "response"]}, texts=_list(TEXT, 0, 2_048), structured_messages=MESSAGES,
        tool_calls=_list(_object(), 0, 2_048), litellm_call_id=TEXT,
    ),
    "LiteLLMAnswer": _object("action", action={"enum": ["NONE", "BLOCKED"]}, blocked_reason=TEXT, stream_holdback_chars=_list(WHOLE)),
    "Health": _object("status guard mode on_error counters", status={"const": "ok"}, guard=GUARD, mode=TEXT, on_error=TEXT, counters=_object()),
    "Ready": _object("status", status={"enum": ["ready", "not ready"]}, reason=TEXT),
}  # fmt: skip
