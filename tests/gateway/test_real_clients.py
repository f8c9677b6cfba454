"""Clients that people use, against the command line's own server: curl, and LiteLLM's proxy in front (where its environment is there)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from tests.gateway.conftest import FORBIDDEN, Gateway, Scripted, answers, content, events, says

pytestmark = pytest.mark.filterwarnings("ignore")
CHARTER = [sys.executable, "-c", "from charter.cli import main; main()"]
ASKED = {"messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def commanded(*arguments: str, cwd: Path) -> Iterator[str]:
    """`charter serve` with these arguments; yields its URL, which the log tells."""
    process = subprocess.Popen(
        [*CHARTER, "serve", *arguments, "--port", "0"], stderr=subprocess.PIPE, text=True, cwd=cwd, env=dict(os.environ)
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line):  # with --port 0 the log says which
                yield found[1]
                break
        else:
            pytest.fail("it ended before it served")
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_streaming_and_not_with_a_key(chat_guard: Path, upstream: Scripted, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = subprocess.run([*CHARTER, "keys", str(keys), "--add", "curl"], capture_output=True, text=True, check=True).stdout.strip()
    with commanded(str(chat_guard), "--upstream", upstream.url, "--keys", str(keys), cwd=tmp_path) as url:
        post = ["-H", "content-type: application/json", "-X", "POST", f"{url}/v1/chat/completions", "-d"]
        whole = json.dumps({**ASKED, "model": upstream.plays(answers("all is well"))})
        streamed = json.dumps({**ASKED, "model": upstream.plays(says("all ", "is ", "well")), "stream": True})
        assert (
            json.loads(curl("-H", f"authorization: Bearer {key}", *post, whole).stdout)["choices"][0]["message"]["content"] == "all is well"
        )
        said = curl("-N", "-i", "-H", f"x-api-key: {key}", *post, streamed).stdout
        head, _, body = said.replace("\r\n", "\n").partition("\n\n")
        assert "content-type: text/event-stream" in head.lower()
        assert "x-charter-request:" in head.lower()
        assert content(events(body.encode())) == "all is well"
        assert body.rstrip().endswith("data: [DONE]")
        refused = curl("-w", "%{http_code}", *post, whole).stdout
        assert (refused[-3:], "invalid_api_key" in refused) == ("401", True)
        assert curl("-w", "%{http_code}", "-o", os.devnull, f"{url}/healthz").stdout == "200"
        squeezed = curl("-w", "%{http_code}", "-o", os.devnull, "-H", f"x-api-key: {key}", "-H", "content-encoding: gzip", *post, whole)
        assert squeezed.stdout == "415"


@pytest.fixture(scope="module")
def proxy(gateways: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """LiteLLM in front of a gateway, which is its guardrail as well."""
    from serving import peers

    if "CHARTER_PEERS" not in os.environ:
        pytest.skip("LiteLLM has an environment of its own: CHARTER_PEERS names its folder, benchmarks/serving/peers.py makes it")
    if why := peers.missing("litellm"):
        pytest.skip(why)
    gateway = gateways()
    with peers.litellm(gateway.url, gateway.url, tmp_path_factory.mktemp("litellm")) as server:
        yield server.url


@pytest.mark.parametrize("guardrails", [[], ["safest"]])
def test_litellm_in_front_passes_on_what_passes_and_nothing_else(proxy: str, gateway: Gateway, guardrails: list[str]) -> None:
    def ask(model: str, **more: object) -> httpx2.Response:
        return httpx2.post(
            f"{proxy}/v1/chat/completions", json={**ASKED, "model": model, "guardrails": guardrails, **more}, trust_env=False, timeout=120
        )

    for script, expected in ((says("all ", "is ", "well"), "all is well"), (says("one ", f"{FORBIDDEN} ", "two"), "one ")):
        text = ask(gateway.upstream.plays(script), stream=True).text
        assert content(events("\n\n".join(line for line in text.splitlines() if line).encode())).strip() == expected.strip()
        assert FORBIDDEN not in text
    assert ask(gateway.upstream.plays(answers("all is well"))).json()["choices"][0]["message"]["content"] == "all is well"
    blocked = ask(gateway.upstream.plays(answers(f"one {FORBIDDEN}"))).text
    assert FORBIDDEN not in blocked
    counters = gateway.counters()
    assert (counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (0, 0)
