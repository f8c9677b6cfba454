"""Requests that are too large, broken, or that two parsers would read differently."""

from __future__ import annotations

import pytest
from tests.gateway.conftest import FORBIDDEN, Gateway

from charter.gateway.body import dump, parse
from charter.gateway.errors import HTTPProblem

BAD = {
    b"": "not JSON", b"{oops": "line 1, column 2", b"[1]": "JSON object, not list", b'{"a": NaN}': "no JSON number", b"\xff\xfe{": "not JSON",
    b'{"a": 1, "a": 2}': "stands twice", b'{"messages": [], "Messages": []}': "nothing but case", b'{"messages": [], "me\xc5\xbfsages": []}': "case",
    b'{"a": "\\ud800"}': "surrogate", b'{"a": 1e999}': "not JSON", b'{"a": ' + b"[" * 100_000: "nested too deep", b'{"a": ' + b"1" * 5_000 + b"}": "not JSON",
}  # fmt: skip


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_bad_json_is_a_400_of_one_sentence(gateway: Gateway, data: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/moderations"):
        response = gateway.http.post(path, content=data)
        assert response.status_code == 400
        assert BAD[data] in response.json()["error"]["message"]
        assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "naïve 日本 😀 \u2028"]}, {}, {"big": 12345678901234567890}])
def test_what_is_read_and_written_anew_is_the_same(value: dict[str, object]) -> None:
    assert parse(dump(value).encode()) == value


def test_half_of_a_surrogate_pair_is_written_as_an_escape() -> None:
    assert dump({"a": "\ud83d"}) == '{"a":"\\ud83d"}'


def test_an_object_that_names_a_key_twice_is_refused_at_any_depth() -> None:
    with pytest.raises(HTTPProblem, match="twice"):
        parse(f'{{"messages": [{{"role": "user", "content": "hi", "content": "{FORBIDDEN}"}}]}}'.encode())


@pytest.mark.parametrize("size", [1_048_577, 5_000_000])
def test_a_request_over_the_limit_is_a_413_whether_its_length_is_told_or_not(gateway: Gateway, size: int) -> None:
    asked = len(gateway.upstream.bodies)
    for content in (b"x" * size, iter([b"x" * 100_000] * (size // 100_000 + 1))):
        response = gateway.http.post("/v1/chat/completions", content=content)
        assert response.status_code == 413
        assert "larger than 1,048,576 bytes" in response.json()["error"]["message"]
    assert len(gateway.upstream.bodies) == asked


def test_a_compressed_request_is_a_415(gateway: Gateway) -> None:
    assert gateway.http.post("/v1/moderations", content=b"x", headers={"content-encoding": "gzip"}).status_code == 415


@pytest.mark.parametrize("body", [{}, {"messages": "x"}, {"messages": []}, {"messages": ["x"]}, {"messages": [{"content": "x"}]}])
def test_a_chat_without_messages_is_a_400(gateway: Gateway, body: dict[str, object]) -> None:
    response = gateway.http.post("/v1/chat/completions", json={"model": "m", **body})
    assert response.status_code == 400
    assert "messages" in response.json()["error"]["message"]


@pytest.mark.parametrize("n", [0, -1, 129, 1.5, True, "2"])
def test_a_number_of_choices_that_is_none_is_a_400(gateway: Gateway, n: object) -> None:
    response = gateway.http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}], "n": n})
    assert (response.status_code, "`n`" in response.text) == (400, True)
