"""Errors as HTTP answers in OpenAI's shape: a status and one sentence that says what is wrong and what to do."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class HTTPProblem(Exception):
    """A request that gets an error for its answer."""

    def __init__(self, status: int, sentence: str, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.kind, self.code = status, sentence, kind, code

    @property
    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        return {"error": {"message": self.sentence, "type": self.kind, "param": None, "code": self.code}}


def bad_request(sentence: str, code: str | None = None) -> HTTPProblem:
    """400: the client's to mend."""
    return HTTPProblem(400, sentence, code=code)


def upstream_problem(sentence: str) -> HTTPProblem:
    """502: the upstream can't be reached or doesn't answer as it should."""
    return HTTPProblem(502, sentence, "upstream_error", "upstream_unusable")


def scoring_problem(sentence: str) -> HTTPProblem:
    """500: scoring failed, and what is not scored is not let through."""
    return HTTPProblem(500, sentence, "scoring_error", "not_scored")


async def answer_problem(_request: Request, error: Exception) -> Response:
    """Starlette's handler of HTTPProblem."""
    assert isinstance(error, HTTPProblem)
    return JSONResponse(error.body, error.status)


async def answer_unknown(request: Request, error: Exception) -> Response:
    """Starlette's handler of unknown paths and methods."""
    status = getattr(error, "status_code", 404)
    sentence = (
        f"{request.method} {request.url.path} is not served here; Charter serves /v1/chat/completions, /v1/moderations and /v1/models"
    )
    return JSONResponse(HTTPProblem(status, sentence).body, status, headers=getattr(error, "headers", None))


async def answer_crash(_request: Request, _error: Exception) -> Response:
    """Starlette's handler of what nobody foresaw. Says nothing of the cause, which may hold content."""
    return JSONResponse(HTTPProblem(500, "the gateway failed; its log says why", "server_error").body, 500)
