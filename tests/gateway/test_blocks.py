"""What the client sees of a block, on every surface, is the operator's choice; what it never sees stays the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from tests.gateway import test_completions, test_messages, test_responses
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway, Script, answers, says

PIECES = ["one ", FORBIDDEN, " two"]
SURFACES: dict[str, tuple[dict[str, Any], Callable[[], Script], Callable[[], Script]]] = {
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": "hello"}]}, lambda: says(*PIECES), lambda: answers("".join(PIECES))),
    "/v1/completions": ({"prompt": "hello"}, lambda: test_completions.says(*PIECES), lambda: test_completions.answers("".join(PIECES))),
    "/v1/messages": (
        test_messages.PROMPT, lambda: test_messages.plays(test_messages.block(0, "text", *PIECES)),
        lambda: test_messages.answers({"type": "text", "text": "".join(PIECES)}),
    ),
    "/v1/responses": (
        {"input": "hello"}, lambda: test_responses.plays(("message", PIECES)),
        lambda: test_responses.answers(test_responses.item(0, "message", "".join(PIECES))),
    ),
}  # fmt: skip


def restricted(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(body).replace("hello", FORBIDDEN))
    return found


def counted(gateway: Gateway) -> tuple[int, int]:
    counters = gateway.counters()
    return counters["released_unscored_chars"], counters["released_after_verdict_chars"]


@pytest.mark.parametrize("path", SURFACES)
def test_an_error_in_place_of_the_rest(gateways: Callable[..., Gateway], path: str) -> None:
    gateway = gateways(on_block="error")
    body, stream, whole = SURFACES[path]
    for response in (gateway.post(path, {"model": "m", **restricted(body)}), gateway.post(path, body, whole())):
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "guardrails_violation"
        assert (response.json()["charter"]["action"], response.headers["x-charter-action"]) == ("block", "block")
    got = gateway.post(path, {**body, "stream": True}, stream())
    last = json.loads(got.text.rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "content_blocked"
    assert ("one" in got.text, FORBIDDEN in got.text.replace(test_responses.ECHO, ""), "two" in got.text) == (True, False, False)
    assert counted(gateway) == (0, 0)


@pytest.mark.parametrize("path", SURFACES)
def test_the_operators_words_in_place_of_the_rest(gateways: Callable[..., Gateway], path: str) -> None:
    gateway = gateways(on_block="refusal", refusal="Ask something else, please.")
    body, stream, whole = SURFACES[path]
    for more in ({}, {"stream": True}):
        said = [
            gateway.post(path, {"model": "m", **restricted(body), **more}),
            gateway.post(path, {**body, **more}, stream() if more else whole()),
        ]
        assert all("Ask something else, please." in response.text for response in said)
        assert all(reason in response.text for response in said for reason in [{"/v1/messages": "refusal"}.get(path, "content_filter")])
        assert "one" in said[1].text
        assert "two" not in said[1].text
    assert counted(gateway) == (0, 0)


def test_the_words_stand_apart_from_what_was_said(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(on_block="refusal", refusal="No.")
    assert gateway.ask(answers(f"one {FORBIDDEN}")).json()["choices"][0]["message"]["content"] == "one\n\nNo."
    stream = gateway.openai.chat.completions.create(
        model=gateway.upstream.plays(says(*PIECES)), messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "one\n\nNo."


def test_the_real_client_raises_on_the_error_frame(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(on_block="error")
    with pytest.raises(openai.APIError, match="blocked by the content policy"):
        list(
            gateway.openai.chat.completions.create(
                model=gateway.upstream.plays(says(*PIECES)), messages=[{"role": "user", "content": "x"}], stream=True
            )
        )


@pytest.mark.parametrize("path", SURFACES)
def test_a_scorer_that_fails_withholds_on_every_surface(gateway: Gateway, path: str) -> None:
    body, stream, _ = SURFACES[path]
    script = stream()
    echo = test_responses.ECHO.encode()
    script.blocks = [block.replace(echo, b"").replace(FORBIDDEN.encode(), BREAKS.encode()) for block in script.blocks]
    got = gateway.post(path, {**body, "stream": True}, script)
    assert ("scoring failed" in got.text, BREAKS in got.text, "two" in got.text) == (True, False, False)
    assert counted(gateway) == (0, 0)


def test_readiness_is_the_upstreams(gateways: Callable[..., Gateway]) -> None:
    assert gateways().http.get("/readyz").json() == {"status": "ready"}
    gone = gateways(upstream_url="http://127.0.0.1:9/v1").http.get("/readyz")
    assert (gone.status_code, "does not answer" in gone.json()["reason"]) == (503, True)
