"""The gateway whose upstream is the guard's own model, as OpenAI's client sees it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import BadRequestError, OpenAI
from tests.gateway.conftest import serving

from charter.gateway.app import create_app
from charter.gateway.settings import IN_PROCESS, Settings
from charter.guard.in_process import InProcessGuard, load_in_process
from charter.models.generation import Sampling
from charter.records import Turn

ASK: dict[str, Any] = {
    "model": "m", "messages": [{"role": "user", "content": "Is the door open?"}], "max_tokens": 16, "temperature": 1.0, "seed": 5
}  # fmt: skip
Served = tuple[OpenAI, Callable[[], dict[str, int]]]


@pytest.fixture(scope="module")
def serve(chat_guard: Path, chat_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def get(prompt: float = 1.0, reply: float = 1.0, **more: Any) -> Served:
            guard = _at(chat_guard, chat_folder, prompt, reply, tmp_path_factory.mktemp("at") / "guard")
            url = stack.enter_context(serving(create_app(guard, Settings(IN_PROCESS, **more))))
            client = stack.enter_context(OpenAI(base_url=url + "/v1", api_key="x", max_retries=0))
            return client, lambda: httpx2.get(url + "/healthz", trust_env=False).json()["counters"]

        yield get


def _at(chat_guard: Path, chat_folder: Path, prompt: float, reply: float, folder: Path) -> InProcessGuard:
    from charter.guard.folder import read_record

    shutil.copytree(chat_guard, folder)
    record, _ = read_record(folder)
    views = {v: record.views[v].model_copy(update={"threshold": t}) for v, t in (("prompt", prompt), ("exchange", reply))}
    (folder / "guard.json").write_text(record.model_copy(update={"views": views}).model_dump_json())
    return load_in_process(folder, str(chat_folder))


def _written(chat_guard: Path, chat_folder: Path) -> str:
    session = load_in_process(chat_guard, str(chat_folder)).open((Turn("user", "Is the door open?"),))
    return "".join(session.write(Sampling(16, temperature=1.0, seed=5)))


def _streamed(client: OpenAI, **more: Any) -> tuple[str, str | None]:
    chunks = list(client.chat.completions.create(**{**ASK, "stream": True, **more}))
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    return said, next((c.choices[0].finish_reason for c in reversed(chunks) if c.choices), None)


def test_a_harmless_reply_arrives_as_the_model_wrote_it(serve: Callable[..., Served], chat_guard: Path, chat_folder: Path) -> None:
    client, counters = serve()
    whole = client.chat.completions.create(**ASK)
    expected = _written(chat_guard, chat_folder)
    assert expected
    assert (whole.choices[0].message.content, _streamed(client)[0]) == (expected, expected)
    assert whole.usage is not None
    assert whole.usage.completion_tokens in range(1, 17)
    assert [m.id for m in client.models.list()] == ["in-process"]
    assert client.moderations.create(input="Is the door open?").results[0].flagged is False
    found = counters()
    assert (found["errors"], found["released_unscored_chars"], found["released_after_verdict_chars"]) == (0, 0, 0)


def test_a_restricted_prompt_is_not_answered_and_a_restricted_reply_is_cut(serve: Callable[..., Served]) -> None:
    client, counters = serve(prompt=0.0)
    assert _streamed(client) == ("", "content_filter")
    assert counters()["blocked_prompts"] == 1
    client, counters = serve(reply=0.0)
    assert _streamed(client) == ("", "content_filter")
    assert client.chat.completions.create(**ASK).choices[0].finish_reason == "content_filter"
    found = counters()
    assert (found["blocked_replies"], found["released_unscored_chars"], found["released_after_verdict_chars"]) == (2, 0, 0)


def test_shadow_lets_it_pass_and_says_so(serve: Callable[..., Served], chat_guard: Path, chat_folder: Path) -> None:
    client, counters = serve(reply=0.0, mode="shadow")
    assert _streamed(client)[0] == _written(chat_guard, chat_folder)
    assert (counters()["flagged_replies"], counters()["errors"]) == (1, 0)


def test_what_the_model_can_not_follow_is_refused_in_a_sentence(serve: Callable[..., Served]) -> None:
    client, _ = serve()
    for bad, words in [
        ({"n": 2}, "leave `n` out"), ({"logprobs": True}, "`logprobs`"), ({"temperature": 3.0}, "`temperature`"),
        ({"extra_body": {"max_tokens": "many"}}, "`max_tokens`"), ({"messages": [{"role": "judge", "content": "x"}]}, "no role"),
        ({"messages": [{"role": "user", "content": "door " * 600}]}, "longer than the model's context"),
    ]:  # fmt: skip
        with pytest.raises(BadRequestError, match=words):
            client.chat.completions.create(**{**ASK, **bad})
    for ask in (lambda: client.completions.create(model="m", prompt="hello"), lambda: client.responses.create(model="m", input="hello")):
        with pytest.raises(BadRequestError, match="answers /v1/chat/completions alone"):
            ask()
