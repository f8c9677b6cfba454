"""Keys over HTTP: who gets in, what they may do, and what the upstream gets to see of them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from tests.gateway.conftest import FORBIDDEN, Gateway, Script, Scripted, answers, chunk, event, says

from charter.gateway.keys import Key, hashed, new_key, write_keys

CLIENT_KEY, OTHER_KEY, UPSTREAM_KEY = new_key(), new_key(), "sk-upstream-planted"
GUARDED = (
    ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/v1/responses"), ("POST", "/v1/messages"),
    ("POST", "/v1/moderations"), ("POST", "/v1/guard/check"), ("POST", "/v1/guard/sessions"), ("POST", "/v1/guard/sessions/x"),
    ("DELETE", "/v1/guard/sessions/x"), ("POST", "/v1/checks"), ("POST", "/beta/litellm_basic_guardrail_api"), ("GET", "/v1/models"),
    ("GET", "/metrics"), ("GET", "/nowhere"),
)  # fmt: skip


@pytest.fixture(scope="module")
def keyed(gateways: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Gateway]:
    """A gateway with a key of these limits; the other key has none."""

    def get(settings: dict[str, Any] | None = None, **limits: int) -> Gateway:
        path = tmp_path_factory.mktemp("keys") / "keys.json"
        write_keys(path, [Key(name="app", sha256=hashed(CLIENT_KEY), **limits), Key(name="other", sha256=hashed(OTHER_KEY))])
        return gateways(keys=path, **(settings or {}))

    return get


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "headers", [{}, bearer("charter-wrong"), {"x-api-key": "charter-wrong"}, {"authorization": CLIENT_KEY}, {"authorization": "Basic " + CLIENT_KEY}]
)  # fmt: skip
def test_without_a_key_nothing_is_answered(keyed: Callable[..., Gateway], method: str, path: str, headers: dict[str, str]) -> None:
    gateway = keyed()
    seen = len(gateway.upstream.headers), gateway.guard.n_read
    found = gateway.http.request(method, path, json={"input": FORBIDDEN} if method == "POST" else None, headers=headers)
    assert (found.status_code, found.headers["www-authenticate"]) == (401, "Bearer")
    error = found.json()["error"]
    assert ("key" in error["message"], error["code"], error["type"]) == (True, "invalid_api_key", "authentication_error")
    assert (found.json().get("type") == "error") == (path == "/v1/messages")
    assert "wrong" not in found.text
    assert (len(gateway.upstream.headers), gateway.guard.n_read) == seen


def test_health_is_open(keyed: Callable[..., Gateway]) -> None:
    assert [keyed().http.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


@pytest.mark.parametrize(
    "headers",
    [
        bearer(CLIENT_KEY),
        {"x-api-key": CLIENT_KEY},
        {**bearer("none"), "x-api-key": CLIENT_KEY},
        {"authorization": f"bearer  {CLIENT_KEY}"},
    ],
)
@pytest.mark.parametrize("own", [None, UPSTREAM_KEY])
def test_the_clients_key_stays_here(keyed: Callable[..., Gateway], headers: dict[str, str], own: str | None) -> None:
    gateway = keyed({"upstream_key": own})
    gateway.upstream.headers.clear()
    body = {"messages": [{"role": "user", "content": "hello"}]}
    for path, script in (("/v1/chat/completions", answers("fine")), ("/v1/chat/completions", says("fine"))):
        assert gateway.post(path, body, script, **headers, **{"x-mine": "passes"}).status_code == 200
    assert gateway.http.get("/v1/models", headers=headers).status_code == 200
    assert len(gateway.upstream.headers) == 3
    for sent in gateway.upstream.headers:
        assert CLIENT_KEY not in json.dumps(sent)
        assert sent.get("authorization") == (f"Bearer {own}" if own else None)
        assert "x-api-key" not in sent
    assert gateway.upstream.headers[0]["x-mine"] == "passes"


def test_both_makers_clients_understand(keyed: Callable[..., Gateway]) -> None:
    gateway = keyed(requests_per_minute=1)
    asked: Any = [{"role": "user", "content": "hello"}]
    wrong = openai.OpenAI(base_url=gateway.url + "/v1", api_key="no", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.chat.completions.create(model="m", messages=asked)
    right = openai.OpenAI(base_url=gateway.url + "/v1", api_key=CLIENT_KEY, max_retries=0)
    model = gateway.upstream.plays(answers("fine"))
    assert right.chat.completions.create(model=model, messages=asked).choices[0].message.content == "fine"
    with pytest.raises(openai.RateLimitError) as caught:
        right.chat.completions.create(model=model, messages=asked)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    for key, kind in (("no", anthropic.AuthenticationError), (CLIENT_KEY, anthropic.RateLimitError)):
        client = anthropic.Anthropic(base_url=gateway.url, api_key=key, max_retries=0)
        with pytest.raises(kind) as told:
            client.messages.create(model=model, max_tokens=5, messages=asked)
        assert told.value.body["type"] == "error"


def test_one_keys_limit_is_not_anothers(keyed: Callable[..., Gateway]) -> None:
    gateway = keyed(requests_per_minute=2)
    statuses = [gateway.post("/v1/moderations", {"input": "a"}, **bearer(key)).status_code for key in [CLIENT_KEY] * 3 + [OTHER_KEY] * 3]
    assert statuses == [200, 200, 429, 200, 200, 200]


def test_a_stream_counts_until_it_ends_and_no_longer(keyed: Callable[..., Gateway]) -> None:
    gateway = keyed(streams=1)
    slow = Script([event(chunk({"content": "one "}))], then="hang")
    body = {"messages": [{"role": "user", "content": "hello"}], "stream": True, "model": gateway.upstream.plays(slow)}
    with gateway.http.stream("POST", "/v1/chat/completions", json=body, headers=bearer(CLIENT_KEY)) as first:
        blocks = first.iter_raw()  # kept: an iterator that is let go of closes the connection
        next(blocks)
        refused = gateway.post("/v1/messages", {}, **bearer(CLIENT_KEY))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["type"] == "rate_limit_error"
    for _ in range(400):
        if (last := gateway.post("/v1/moderations", {"input": "a"}, **bearer(CLIENT_KEY))).status_code == 200:
            break
        threading.Event().wait(0.05)
    assert last.status_code == 200


def test_a_key_may_send_so_much_and_the_gateways_own_limit_stays(keyed: Callable[..., Gateway]) -> None:
    gateway = keyed({"max_body_bytes": 4_000}, max_body=1_000)
    sizes = {(name, n): gateway.post("/v1/moderations", {"input": "a" * n}, **bearer(key)).status_code
             for name, key in (("app", CLIENT_KEY), ("other", OTHER_KEY)) for n in (900, 2_000, 5_000)}  # fmt: skip
    assert sizes == {
        ("app", 900): 200, ("app", 2_000): 413, ("app", 5_000): 413, ("other", 900): 200, ("other", 2_000): 200, ("other", 5_000): 413,
    }  # fmt: skip


def test_one_client_cant_go_on_with_anothers_call(keyed: Callable[..., Gateway]) -> None:
    gateway = keyed()
    call = {"litellm_call_id": "same", "texts": ["hello"]}
    gateway.post("/beta/litellm_basic_guardrail_api", {**call, "input_type": "request", "texts": ["first prompt"]}, **bearer(CLIENT_KEY))
    gateway.guard.opened.clear()
    gateway.post("/beta/litellm_basic_guardrail_api", {**call, "input_type": "response"}, **bearer(OTHER_KEY))
    assert [[turn.content for turn in turns] for turns in gateway.guard.opened] == [[""]]


def test_the_log_names_the_key_and_never_tells_it(keyed: Callable[..., Gateway], caplog: pytest.LogCaptureFixture) -> None:
    gateway = keyed()
    with caplog.at_level(logging.DEBUG):
        gateway.post("/v1/moderations", {"input": "a"}, **bearer(CLIENT_KEY))
        gateway.post("/v1/moderations", {"input": "a"}, **bearer("charter-unknown"))
    lines = [record.fields for record in caplog.records if record.name == "charter.requests"]
    assert [(line["client"], line["status"]) for line in lines] == [("app", 200), (None, 401)]
    assert CLIENT_KEY not in caplog.text + json.dumps(lines)
    assert "charter-unknown" not in caplog.text + json.dumps(lines)


def test_open_paths_drop_keys_too(keyed: Callable[..., Gateway], upstream: Scripted) -> None:
    upstream.headers.clear()
    httpx2.get(keyed().url + "/readyz", headers=bearer(CLIENT_KEY), trust_env=False)
    assert upstream.headers
    assert CLIENT_KEY not in json.dumps(upstream.headers)
