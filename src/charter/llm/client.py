"""Any OpenAI-compatible server as a `Chat`. Passing faults are retried, lasting ones become one clear sentence."""

from __future__ import annotations

import email.utils
import logging
import time
from typing import TYPE_CHECKING, Any

from charter.errors import MissingExtra, TeacherError
from charter.llm.chat import Reply, Request
from charter.records import Turn

if TYPE_CHECKING:
    from openai import APIStatusError
    from openai.types.chat import ChatCompletion

LONGEST_WAIT_S = 60.0
"""The most that a server's Retry-After is obeyed for."""
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""How vLLM, SGLang and llama.cpp are told to go on from the last message. Servers that refuse the fields are asked without."""
logging.getLogger("stamina").addHandler(logging.NullHandler())  # else each retry prints a bare line on stderr


class OpenAIChat:
    """One model behind a base URL such as http://127.0.0.1:8000/v1."""

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, timeout_s: float = 120.0, attempts: int = 6, first_wait_s: float = 0.5
    ) -> None:
        """`api_key` defaults to CHARTER_TEACHER_KEY, or to none. OPENAI_API_KEY is not read: it must not go to whatever URL is given.

        Raises:
            TeacherError: the URL is not one.
            MissingExtra: `openai` is not installed.
        """
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise MissingExtra("a teacher behind a URL needs: pip install 'charter[train]'") from error
        import os

        if not base_url.startswith(("http://", "https://")):
            raise TeacherError(f"{base_url!r} is not the URL of a teacher; it looks like http://127.0.0.1:8000/v1")
        self.model = model
        self._where = f"the teacher {model!r} at {base_url}"
        self._attempts, self._first_wait_s = attempts, first_wait_s
        self._quirks: set[str] = set()
        key = api_key or os.environ.get("CHARTER_TEACHER_KEY") or "none"
        self._client = AsyncOpenAI(base_url=base_url, api_key=key, timeout=timeout_s, max_retries=0)

    async def check(self) -> None:
        """One cheap call, without retries.

        Raises:
            TeacherError: it fails; says why.
        """
        await self._ask(Request((Turn("user", "Hello"),), max_tokens=1, temperature=0.0, seed=0), attempts=1)

    async def complete(self, request: Request) -> Reply:
        """One reply; timeouts, lost connections, 429 and 5xx are tried again.

        Raises:
            TeacherError: it still fails, or the answer is no chat completion.
        """
        return await self._ask(request, self._attempts)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(self, request: Request, attempts: int) -> Reply:
        import openai
        import stamina

        try:
            async for attempt in stamina.retry_context(
                on=_backoff, attempts=attempts, timeout=None, wait_initial=self._first_wait_s, wait_max=20.0, wait_jitter=self._first_wait_s
            ):
                with attempt:
                    completion = await self._send(request)
        except openai.APIStatusError as error:
            raise TeacherError(f"{self._where} answers {error.status_code}: {_reason(error)}; {_mend(error.status_code)}") from error
        except openai.APITimeoutError as error:
            raise TeacherError(f"{self._where} does not answer in time; is it overloaded?") from error
        except openai.APIConnectionError as error:
            raise TeacherError(
                f"{self._where} can't be reached ({error.__cause__ or error}); is it running, and is the URL right?"
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise TeacherError(f"{self._where} answers with something that is no chat completion ({error})") from error
        return self._reply(completion, request.prefill)

    async def _send(self, request: Request) -> ChatCompletion:
        """One HTTP call; where a server refuses a field by name, it is asked again without."""
        import openai

        try:
            completion: ChatCompletion = await self._client.chat.completions.create(**self._body(request))
            return completion
        except openai.BadRequestError as error:
            quirk = next((q for q in ("max_completion_tokens", *CONTINUE) if q in str(error)), None)
            if quirk is None or quirk in self._quirks:
                raise
            self._quirks.add(quirk)
            return await self._send(request)

    def _body(self, request: Request) -> dict[str, Any]:
        messages = [{"role": t.role, "content": t.content} for t in request.messages]
        body: dict[str, Any] = {"model": self.model, "messages": messages, "temperature": request.temperature, "seed": request.seed}
        body["max_completion_tokens" if "max_completion_tokens" in self._quirks else "max_tokens"] = request.max_tokens
        if request.stop:
            body["stop"] = list(request.stop)
        if request.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.prefill:
            messages.append({"role": "assistant", "content": request.prefill})
            if not self._quirks & CONTINUE.keys():
                body["extra_body"] = CONTINUE
        return body

    def _reply(self, completion: ChatCompletion, prefill: str) -> Reply:
        if not getattr(completion, "choices", None):
            raise TeacherError(
                f"{self._where} answers with something that is no chat completion; is the URL an OpenAI-compatible one (…/v1)?"
            )
        choice, usage = completion.choices[0], completion.usage
        text = choice.message.content or ""
        tokens = (choice.logprobs.content or []) if choice.logprobs else []
        return Reply(
            text.removeprefix(prefill),  # some servers repeat the prefill, some don't
            usage.prompt_tokens if usage else 0,
            usage.completion_tokens if usage else 0,
            tuple({top.token: top.logprob for top in token.top_logprobs} for token in tokens),
        )


def _backoff(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds."""
    import openai

    if isinstance(error, openai.APIStatusError):
        if error.status_code == 429 or error.status_code >= 500:
            wait = _retry_after(error.response.headers.get("retry-after"))
            return True if wait is None else wait
        return False
    return isinstance(error, openai.APIConnectionError)  # timeouts are among them


def _retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (seconds or an HTTP date), at most LONGEST_WAIT_S."""
    if not header:
        return None
    try:
        wait = float(header)
    except ValueError:
        date = email.utils.parsedate_tz(header)
        if date is None:
            return None
        wait = email.utils.mktime_tz(date) - time.time()
    return min(max(wait, 0.0), LONGEST_WAIT_S)


def _reason(error: APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error.message).split())[:200]


def _mend(status: int) -> str:
    if status in (401, 403):
        return "set CHARTER_TEACHER_KEY"
    if status == 404:
        return "check the URL (it ends in /v1) and --teacher-model"
    return "try again later" if status == 429 or status >= 500 else "check --teacher-model and what it supports"
