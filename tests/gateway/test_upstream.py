"""What travels to the upstream and back, and what doesn't."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from tests.gateway.conftest import Gateway, Scripted, answers

from charter.errors import UpstreamError
from charter.gateway.settings import Settings
from charter.gateway.upstream import Upstream, end_to_end


def test_headers_of_one_connection_and_our_own_do_not_travel() -> None:
    headers = [
        ("Connection", "keep-alive, X-Secret"),
        ("X-Secret", "1"),
        ("Keep-Alive", "5"),
        ("TE", "x"),
        ("X-Charter-Action", "allow"),
        ("X-Other", "2"),
    ]
    assert end_to_end(headers, frozenset()) == [("x-other", "2")]


def test_a_request_travels_with_its_own_key_and_headers_but_no_cookies(gateway: Gateway) -> None:
    headers = {
        "authorization": "Bearer sk-mine",
        "cookie": "a=b",
        "x-mine": "1",
        "x-charter-mode": "off",
        "host": "elsewhere.example",
        "te": "x",
    }
    body = {"model": gateway.upstream.plays(answers("x")), "messages": [{"role": "user", "content": "x"}]}
    assert gateway.http.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
    got = gateway.upstream.headers[-1]
    assert (got["authorization"], got["x-mine"], got["accept-encoding"]) == ("Bearer sk-mine", "1", "identity")
    assert not {"cookie", "x-charter-mode", "te"} & got.keys()
    assert got["host"] != "elsewhere.example"


def test_a_cookie_that_the_upstream_sets_for_one_client_is_not_sent_for_another(gateway: Gateway) -> None:
    script = answers("x")
    script.headers["set-cookie"] = "session=secret"
    assert "set-cookie" not in gateway.ask(script).headers
    gateway.ask(script)
    assert "cookie" not in gateway.upstream.headers[-1]


def test_the_upstreams_key_takes_the_place_of_the_clients(gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(upstream_key="sk-upstream")
    gateway.http.get("/v1/models", headers={"authorization": "Bearer sk-mine"})
    assert gateway.upstream.headers[-1]["authorization"] == "Bearer sk-upstream"


def test_a_settings_repr_does_not_show_the_key() -> None:
    assert "sk-upstream" not in repr(Settings("http://127.0.0.1/v1", upstream_key="sk-upstream"))


def test_an_upstream_that_is_no_url_is_refused_at_once() -> None:
    with pytest.raises(UpstreamError, match="not the URL of an upstream"):
        Settings("localhost:8000")


@pytest.mark.parametrize(("url", "sentence"), [("http://127.0.0.1:9/v1", "does not answer")])
def test_the_check_says_that_the_upstream_does_not_answer(url: str, sentence: str) -> None:
    with pytest.raises(UpstreamError, match=sentence):
        anyio.run(Upstream(Settings(url)).check)


def test_the_check_takes_any_answer_for_one(upstream: Scripted) -> None:
    anyio.run(Upstream(Settings(upstream.url)).check)
    anyio.run(Upstream(Settings(upstream.url + "/nowhere?api-version=1")).check)
