"""Any OpenAI-compatible server as a `Chat`. Passing faults are retried, lasting ones become one clear sentence.

The protocol is spoken directly: the official client spends more than a millisecond of a core on each call, which halves
what one process can ask of a cluster (`benchmarks/synthesis.py throughput`).
"""

from __future__ import annotations

import email.utils
import json
import logging
import time
from typing import TYPE_CHECKING, Any, NoReturn

from charter.errors import MissingExtra, TeacherError, UnusableAnswer
from charter.llm.chat import FILTERED, Reply, Request
from charter.llm.pool import Budget
from charter.records import Turn

if TYPE_CHECKING:
    import httpx2

LONGEST_WAIT_S = 60.0
"""The most that a server's Retry-After is obeyed for."""
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""How vLLM, SGLang and llama.cpp are told to go on from the last message. Servers that refuse the fields are asked without."""
BLOCKING = frozenset({400, 403, 422})
"""Statuses under which guards tell of a block."""
FIELD_REFUSED = frozenset({400, 422})
"""Answers to a call with a field that the server doesn't know."""
BLOCKS = frozenset({"content_filter", "content_blocked", "content_policy_violation", "guardrails_violation"})
"""Codes and types of errors that tell of a guard's block: Azure's, NeMo's, LiteLLM's and Charter's own. Such an answer is a reply
without text that was filtered."""
NOT_THIS_CALL_ALONE = frozenset({401, 403, 404, 407, 429})
"""Answers that every other call would get as well: the run stops. Other lasting faults may lie in one request."""
logging.getLogger("stamina").addHandler(logging.NullHandler())  # else each retry prints a bare line on stderr


class OpenAIChat:
    """One model behind a base URL such as http://127.0.0.1:8000/v1."""

    def __init__(
        self, base_url: str, model: str, api_key: str | None = None, timeout_s: float = 120.0, attempts: int = 6, first_wait_s: float = 0.5,
        role: str = "teacher", budget: Budget | None = None,
    ) -> None:  # fmt: skip
        """`role` is what errors call it. `api_key` defaults to CHARTER_<ROLE>_KEY, or to none. OPENAI_API_KEY is not read: it must not go
        to whatever URL is given. Calls that are lost on the way count against `budget`.

        Raises:
            TeacherError: the URL is not one, or the key can't be sent.
            MissingExtra: `stamina` is not installed.
        """
        try:
            import httpx2
            import stamina  # noqa: F401  # missing packages are told here, before any work
        except ImportError as error:
            raise MissingExtra(f"{_a(role)} behind a URL needs: pip install 'charter[train]'") from error
        import os

        if not base_url.startswith(("http://", "https://")):
            raise TeacherError(f"{base_url!r} is not the URL of {_a(role)}; it looks like http://127.0.0.1:8000/v1")
        self.model = model
        self.retries = 0
        """Calls that were sent once more."""
        self._where, self._role = f"the {role} {model!r} at {base_url}", role
        self._attempts, self._first_wait_s = attempts, first_wait_s
        self._budget, self._quirks = budget or Budget(), set[str]()
        key = api_key or os.environ.get(f"CHARTER_{role.upper()}_KEY") or "none"
        try:
            self._client = httpx2.AsyncClient(
                headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
                timeout=httpx2.Timeout(timeout_s, pool=None),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None),  # how many there are is up to the caller
            )
            self._url = httpx2.URL(f"{base_url.rstrip('/')}/chat/completions")
        except (httpx2.InvalidURL, ValueError) as error:
            raise TeacherError(f"{self._where}: the URL or the key in CHARTER_{role.upper()}_KEY can't be used ({error})") from error

    async def check(self) -> None:
        """One cheap call, without retries.

        Raises:
            TeacherError: it fails; says why.
        """
        await self._ask(Request((Turn("user", "Hello"),), max_tokens=1, temperature=0.0, seed=0), attempts=1)

    async def complete(self, request: Request) -> Reply:
        """One reply; timeouts, lost connections, 429, 5xx and answers that are no completion are tried again.

        Raises:
            UnusableAnswer: it still fails, in a way that may lie in this request alone.
            BudgetExceeded: calls were lost, and another might pass the cost cap.
            TeacherError: the server can't be reached or refuses every call.
        """
        return await self._ask(request, self._attempts)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, request: Request, attempts: int) -> Reply:
        import httpx2
        import stamina

        wait = {"wait_initial": self._first_wait_s, "wait_max": 20.0, "wait_jitter": self._first_wait_s}
        try:
            async for attempt in stamina.retry_context(on=_backoff, attempts=attempts, timeout=None, **wait):
                self.retries += attempt.num > 1
                with attempt:
                    return await self._sent(request)
        except httpx2.TimeoutException as error:
            raise UnusableAnswer(f"{self._where} does not answer in time; is it overloaded?") from error
        except httpx2.TransportError as error:
            raise TeacherError(
                f"{self._where} can't be reached ({error or type(error).__name__}); is it running, and is the URL right?"
            ) from error
        except _Refused as error:
            kind = TeacherError if error.status in NOT_THIS_CALL_ALONE else UnusableAnswer
            raise kind(f"{self._where} answers {error.status}: {error.reason}; {_mend(error.status, self._role)}") from error
        except (_NoCompletion, httpx2.HTTPError) as error:
            raise UnusableAnswer(
                f"{self._where} answers with something that is no chat completion ({error}); is the URL an OpenAI-compatible one (…/v1)?"
            ) from error
        raise AssertionError("a retry context ends by a value or an error")

    async def _sent(self, request: Request) -> Reply:
        """One HTTP call, which counts against the budget if it is lost: the server may have worked for it."""
        import httpx2

        try:
            return await self._send(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise
        except (httpx2.HTTPError, _NoCompletion):
            self._budget.lose(*request.worst)
            raise

    async def _send(self, request: Request) -> Reply:
        """One HTTP call; where a server refuses a field by name, it is asked again without."""
        known = frozenset(self._quirks)  # as sent: a call beside this one may learn of the same field while this one waits
        response = await self._client.post(self._url, content=json.dumps(self._body(request)).encode())
        if response.is_success:
            return _reply(response.content, request.prefill)
        if response.status_code in BLOCKING and _blocked(response.text):
            return Reply("", 0, 0, finish=FILTERED)
        named = response.text if response.status_code in FIELD_REFUSED else ""
        quirk = next((q for q in ("max_completion_tokens", *CONTINUE) if q in named), None)
        if quirk is None or quirk in known:
            raise _Refused(response)
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
                body |= CONTINUE
        return body


class _Refused(Exception):
    """The server answered with an error."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.retry_after = _retry_after(response.headers.get("retry-after"))
        self.reason = _reason(response.text)


class _NoCompletion(Exception):
    """The server answered with success and something else: a page, cut-off JSON, another object."""


def _reply(content: bytes, prefill: str) -> Reply:
    """The first choice of a completion.

    Raises:
        _NoCompletion: it is none.
    """
    try:
        value = json.loads(content)
        choice, usage = value["choices"][0], value.get("usage") or {}
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        tokens = (choice.get("logprobs") or {}).get("content") or []
        top = tuple({str(t["token"]): float(t["logprob"]) for t in token["top_logprobs"]} for token in tokens)
        text = text.encode("utf-8", "replace").decode().removeprefix(prefill)  # no lone surrogates; some servers repeat the prefill
        return Reply(
            text,
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            top,
            str(choice.get("finish_reason") or ""),
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        _garbage(content)


def _garbage(content: bytes) -> NoReturn:
    start = " ".join(content[:80].decode("utf-8", "replace").split())
    raise _NoCompletion(f"it begins {start!r}" if start else "it is empty")


def _backoff(error: Exception) -> bool | float:
    """Whether to try again, or after how many seconds."""
    import httpx2

    if isinstance(error, _Refused):
        if error.status == 429 or error.status >= 500:
            return True if error.retry_after is None else error.retry_after
        return False
    return isinstance(error, (_NoCompletion, httpx2.TransportError, httpx2.DecodingError))  # timeouts are among the second


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
        try:
            wait = email.utils.mktime_tz(date) - time.time()
        except (ValueError, OverflowError):  # a date that no calendar has
            return None
    return min(max(wait, 0.0), LONGEST_WAIT_S) if wait == wait else None


def _reason(text: str) -> str:
    """What the server says for itself: the message of its error, or the beginning of what it sent."""
    try:
        value = json.loads(text)
        error = value.get("error", value)
        message = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        message = text
    return " ".join(str(message).split())[:200] or "no reason given"


def _blocked(text: str) -> bool:
    """Whether an error is a guard's block."""
    try:
        error = json.loads(text)["error"]
        return not BLOCKS.isdisjoint({str(error.get("code")), str(error.get("type"))})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def _mend(status: int, role: str) -> str:
    if status in (401, 403):
        return f"set CHARTER_{role.upper()}_KEY"
    if status == 404:
        return f"check the URL (it ends in /v1) and --{role}-model"
    return "try again later" if status == 429 or status >= 500 else f"check --{role}-model and what it supports"


def _a(role: str) -> str:
    return f"{'an' if role[0] in 'aeiou' else 'a'} {role}"
