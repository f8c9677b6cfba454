"""The playground's paths: there where the settings say so, without content, closed to everything from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files

import httpx2
import pytest
from spelled import Spelled
from tests.gateway.conftest import Gateway, Oracle, Scripted, serving

from charter.gateway.app import create_app
from charter.gateway.playground import TYPES, is_loopback
from charter.gateway.settings import Settings

PAGE = files("charter.gateway") / "page"


@pytest.fixture(scope="module")
def http(upstream: Scripted) -> Iterator[httpx2.Client]:
    app = create_app(Spelled(), Settings(upstream.url, playground=True))
    with serving(app) as url, httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
        yield client


def test_without_the_setting_there_is_nothing(gateway: Gateway) -> None:
    for path in ("/", "/page/main.js", "/playground/about", "/playground/events"):
        assert gateway.http.get(path).status_code == 404


def test_every_file_of_the_page_is_served_under_a_strict_policy(http: httpx2.Client) -> None:
    for path in ["/", *(f"/page/{file.name}" for file in PAGE.iterdir())]:
        response = http.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].split(";")[0] in TYPES.values()
        policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert set(policy.values()) <= {"'none'", "'self'", "'script'"}
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["..%2Fapp.py", "app.py", "%2e%2e", "index.html%00", "no.js"])
def test_nothing_but_the_pages_files_is_served(http: httpx2.Client, name: str) -> None:
    assert http.get(f"/page/{name}").status_code == 404


def test_the_page_names_no_address_and_nothing_inline() -> None:
    for file in PAGE.iterdir():
        text = file.read_text("utf-8")
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses, file.name
        if file.name.endswith(".html"):
            assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", text)
        if file.name.endswith(".js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), file.name


def test_about_tells_guard_thresholds_and_clauses(http: httpx2.Client) -> None:
    told = http.get("/playground/about").json()
    assert told["guard"] == {
        "name": "spelled", "hash": Spelled.hash, "thresholds": {"prompt": 0.8, "reply": 0.5}, "clauses": Spelled.titles
    }  # fmt: skip
    assert (told["mode"], told["on_error"], told["on_block"]) == ("enforce", "closed", "content_filter")


def test_a_guard_that_tells_no_tokens_has_no_thresholds(upstream: Scripted) -> None:
    with serving(create_app(Oracle(), Settings(upstream.url, playground=True))) as url:
        told = httpx2.get(url + "/playground/about", trust_env=False).json()
    assert told["guard"]["thresholds"] is None
    assert told["guard"]["clauses"] == {"words": "words", "numbers": "numbers"}


def test_events_tell_each_verdict_once_and_never_what_was_said(http: httpx2.Client) -> None:
    for text in ("calm QUINCE", "storm~95 QUINCE"):
        http.post("/v1/guard/check", json={"input": text}).raise_for_status()
    found = []
    with http.stream("GET", "/playground/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            assert "QUINCE" not in line
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
                if len(found) == 2:
                    http.post("/v1/guard/check", json={"input": "flood~96 QUINCE"}).raise_for_status()
                if len(found) == 3:
                    break
    assert [(f["stage"], f["verdict"], f["action"], f["clause"]) for f in found] == [
        ("prompt", "passed", "allow", None), ("prompt", "flagged", "block", "storms"), ("prompt", "flagged", "block", "floods"),
    ]  # fmt: skip
    assert len({f["id"] for f in found}) == 3


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("192.168.1.2", False), ("example.org", False)],
)  # fmt: skip
def test_the_page_is_on_by_default_where_only_this_machine_reaches_it(host: str, own: bool) -> None:
    assert is_loopback(host) is own
