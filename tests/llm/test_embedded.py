from __future__ import annotations

from collections.abc import Iterator

import anyio
import httpx2
import pytest

from charter.embedded import gguf_file
from charter.errors import BackboneError, TeacherError
from charter.llm.chat import Reply, Request
from charter.llm.client import OpenAIChat
from charter.llm.embedded import MODEL, embedded_server
from charter.records import Turn

pytest.importorskip("xllamacpp")
try:
    gguf_file()
except BackboneError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with embedded_server(parallel=2, context=256) as address:
        yield address


def ask(url: str, request: Request) -> Reply:
    async def run() -> Reply:
        chat = OpenAIChat(url, MODEL)
        await chat.check()
        reply = await chat.complete(request)
        await chat.aclose()
        return reply

    return anyio.run(run)


def test_it_goes_on_from_a_list_and_tells_its_alternatives(url: str) -> None:
    reply = ask(url, Request((Turn("user", "Name some colours."),), 8, 0.0, 0, ("\n",), 5, "1. Red\n2."))
    assert reply.text.strip().isalpha()
    assert "Red" not in reply.text
    assert len(reply.top_logprobs[0]) == 5
    assert all(value <= 0 for value in reply.top_logprobs[0].values())
    assert reply.prompt_tokens > 10


def test_it_streams_and_obeys_a_grammar(url: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20, "stream": True, "grammar": 'root ::= "one two three"'}
    with httpx2.Client(timeout=60) as client, client.stream("POST", f"{url}/chat/completions", json=body) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert len(lines) > 3
    assert lines[-1] == "data: [DONE]"


def test_it_listens_on_loopback_only_and_is_gone_afterwards() -> None:
    with embedded_server(parallel=1, context=64) as address:
        assert address.startswith("http://127.0.0.1:")
        assert httpx2.get(f"{address}/models").json()["data"][0]["id"] == MODEL
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{address}/models", timeout=2)


def test_it_says_nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with embedded_server(parallel=1, context=64) as address:
        httpx2.get(f"{address}/models")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("parallel", "context"), [(0, 100), (1, 0), (1, 10_000)])
def test_sizes_that_the_model_cannot_hold_are_refused(parallel: int, context: int) -> None:
    with pytest.raises(TeacherError, match=r"8,192 tokens"), embedded_server(parallel, context):
        pass
