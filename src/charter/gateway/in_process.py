"""The upstream that is no other server: the guard's own model answers, and the session that judged the prompt reads along.

It stands where `upstream.Upstream` stands, so streams, blocks, audit and counters are those of any upstream. The reply is drawn as it
is read, step by step in a worker thread: once the guard has cut it, no further token is computed.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
from anyio.to_thread import run_sync
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from charter.gateway.body import dump
from charter.gateway.errors import bad_request, upstream_problem
from charter.gateway.settings import IN_PROCESS, Settings
from charter.gateway.sse import DONE, frame
from charter.gateway.upstream import Upstream
from charter.guard.holdback import OpenGuard

if TYPE_CHECKING:
    from charter.gateway.refusing import Dial
    from charter.models.generation import Generation, Sampling

MODEL = "in-process"
"""The one model's name."""
NOT_SERVED = ("tools", "functions", "logprobs", "top_logprobs", "response_format", "prediction", "audio")
"""Fields that change what a reply is, and that this upstream can't follow."""
log = logging.getLogger("charter.gateway")


class Asked(BaseModel):
    """What of a chat request says how the reply is drawn. Other fields, such as penalties, are not followed."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    stream: bool | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = Field(default=None, max_length=16)
    n: int | None = None
    stream_options: dict[str, Any] | None = None

    @property
    def sampling(self) -> Sampling:
        """Where the request says nothing, the model's own ways."""
        from charter.models.generation import Sampling

        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        said = {"max_tokens": self.max_completion_tokens or self.max_tokens, "temperature": self.temperature, "top_p": self.top_p}
        return Sampling(seed=self.seed, stop=stop, **{k: v for k, v in said.items() if v is not None})  # type: ignore[arg-type]


def open_upstream(settings: Settings, dial: Dial | None = None) -> Upstream:
    """The upstream that the settings name; with a dial, its model, which then answers in the place of any other."""
    if dial is not None:
        from charter.gateway.refusing import Refusing

        return Refusing(settings, dial)
    return InProcess(settings) if settings.upstream_url == IN_PROCESS else Upstream(settings)


class InProcess(Upstream):
    """Answers `POST /chat/completions` and `GET /models` as an OpenAI-compatible server would."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def aclose(self) -> None:
        """There is no connection to close."""

    async def check(self) -> None:
        """The model was loaded with the guard, so it is there."""

    @asynccontextmanager
    async def send(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
        key_header: str = "authorization",
        session: OpenGuard | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """The model's answer, drawn as it is read.

        Raises:
            HTTPProblem: 400 where the request asks for what this model can't do, 502 where its prompt could not be read.
        """
        if (method, path) == ("GET", "/models"):
            listed = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "charter"}]}
            yield httpx2.Response(200, json=listed)
        elif path != "/chat/completions":
            raise bad_request(f"the model in this process answers /v1/chat/completions alone, not /v1{path}")
        else:
            request = json.loads(body or b"{}")
            asked = _asked(request)
            reply = await self.reply(request, asked, session)
            try:
                kind = "text/event-stream" if asked.stream else "application/json"
                yield httpx2.Response(200, headers={"content-type": kind}, stream=reply)
            finally:
                await reply.aclose()

    async def reply(self, request: dict[str, Any], asked: Asked, session: OpenGuard | None) -> Reply:
        """What the model will say; `session` has judged the prompt.

        Raises:
            HTTPProblem: the prompt could not be read.
        """
        if session is None:
            raise upstream_problem("the prompt could not be read, and the model that answers is the one that reads it")
        return Reply(session.generation, session.write(asked.sampling), asked)  # type: ignore[attr-defined]


class Reply(httpx2.AsyncByteStream):
    """One reply as the body of a response."""

    def __init__(self, generation: Generation, pieces: Iterator[str], asked: Asked, note: dict[str, Any] | None = None) -> None:
        """`pieces` are the reply's texts, each drawn as it is taken; `note`: what else the first event says, or the whole."""
        self._generation, self._pieces, self._asked, self._note = generation, pieces, asked, note or {}
        kind = "chat.completion.chunk" if asked.stream else "chat.completion"
        self._envelope = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": MODEL}
        self._closed = False

    async def aclose(self) -> None:
        """Draw no more."""
        self._closed = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        blocks = self._events() if self._asked.stream else self._whole()
        async for block in blocks:
            yield block

    async def _texts(self) -> AsyncIterator[str]:
        """Pieces of the reply, each drawn when it is asked for."""
        while not self._closed:
            try:
                piece = await run_sync(lambda: next(self._pieces, None))
            except Exception as error:
                log.error("the model failed (%s)", type(error).__name__)
                log.debug("the fault", exc_info=error)
                raise httpx2.ReadError("the model failed") from error
            if piece is None:
                return
            yield piece

    async def _events(self) -> AsyncIterator[bytes]:
        yield self._event({"role": "assistant", "content": ""}, **self._note)
        async for text in self._texts():
            yield self._event({"content": text})
        yield self._event({}, self._generation.finish)
        if (self._asked.stream_options or {}).get("include_usage"):
            yield frame(dump({**self._envelope, "choices": [], "usage": self._usage}))
        yield frame(DONE)

    async def _whole(self) -> AsyncIterator[bytes]:
        message = {"role": "assistant", "content": "".join([text async for text in self._texts()])}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._generation.finish}
        yield dump({**self._envelope, **self._note, "choices": [choice], "usage": self._usage}).encode()

    def _event(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return frame(dump({**self._envelope, **more, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))

    @property
    def _usage(self) -> dict[str, int]:
        read, drawn = self._generation.prompt_tokens, self._generation.drawn
        return {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn}


def _asked(body: dict[str, Any]) -> Asked:
    """The request's wishes.

    Raises:
        HTTPProblem: 400.
    """
    if strange := [name for name in NOT_SERVED if body.get(name)]:
        raise bad_request(f"the model in this process does not follow `{strange[0]}`; leave it out")
    try:
        asked = Asked.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise bad_request(f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}") from error
    if asked.n not in (None, 1):
        raise bad_request("the model in this process draws one reply a request; leave `n` out")
    return asked
