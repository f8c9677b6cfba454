"""Errors as HTTP answers in OpenAI's shape or Anthropic's: a status and one sentence that says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

ANTHROPIC = {"upstream_error": "api_error", "scoring_error": "api_error", "server_error": "api_error"}
"""Anthropic's word for a kind of error, where it is another."""


class HTTPProblem(Exception):
    """A request that gets an error for its answer."""

    def __init__(
        self, status: int, sentence: str, kind: str = "invalid_request_error", code: str | None = None,
        headers: Mapping[str, str] | None = None, note: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(sentence)
        self.status, self.sentence, self.kind, self.code = status, sentence, kind, code
        self.headers, self._note = headers, {"charter": note} if note else {}

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON, in OpenAI's shape."""
        return {"error": {"message": self.sentence, "type": self.kind, "param": None, "code": self.code}, **self._note}

    @property
    def anthropic_body(self) -> dict[str, Any]:
        """The same in Anthropic's."""
        kind = {404: "not_found_error", 413: "request_too_large"}.get(self.status, ANTHROPIC.get(self.kind, self.kind))
        return {"type": "error", "error": {"type": kind, "message": self.sentence, "code": self.code}, **self._note}


def bad_request(sentence: str, code: str | None = None) -> HTTPProblem:
    """400: the client's to mend."""
    return HTTPProblem(400, sentence, code=code)


def upstream_problem(sentence: str) -> HTTPProblem:
    """502: the upstream can't be reached or doesn't answer as it should."""
    return HTTPProblem(502, sentence, "upstream_error", "upstream_unusable")


def scoring_problem(sentence: str) -> HTTPProblem:
    """500: scoring failed, and what is not scored is not let through."""
    return HTTPProblem(500, sentence, "scoring_error", "not_scored")


async def answer_problem(request: Request, error: Exception) -> Response:
    """Starlette's handler of HTTPProblem."""
    assert isinstance(error, HTTPProblem)
    return problem_response(request.url.path, error)


def problem_response(path: str, problem: HTTPProblem) -> Response:
    """An error in the shape of the surface that was asked."""
    body = problem.anthropic_body if path == "/v1/messages" else problem.body
    return JSONResponse(body, problem.status, headers=problem.headers)


async def answer_unknown(request: Request, error: Exception) -> Response:
    """Starlette's handler of unknown paths and methods."""
    status = getattr(error, "status_code", 404)
    sentence = f"{request.method} {request.url.path} is not served here; docs/serving.md lists what is, such as POST /v1/chat/completions"
    return problem_response(request.url.path, HTTPProblem(status, sentence, headers=getattr(error, "headers", None)))


async def answer_crash(request: Request, _error: Exception) -> Response:
    """Starlette's handler of what nobody foresaw. Says nothing of the cause, which may hold content."""
    return problem_response(request.url.path, HTTPProblem(500, "the gateway failed; its log says why", "server_error"))
