"""Inputs are judged as prompts; the categories are the restricted clauses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway


def test_the_real_client_reads_a_result_for_each_input(gateway: Gateway) -> None:
    reply = gateway.openai.moderations.create(model="any", input=["a fine text", f"a {FORBIDDEN} text", ""])
    assert [r.flagged for r in reply.results] == [False, True, False]
    assert reply.model == "oracle"
    raw = gateway.http.post("/v1/moderations", json={"input": f"a {FORBIDDEN}"}).json()["results"]
    assert raw == [
        {
            "flagged": True,
            "categories": {"words": True, "numbers": False},
            "category_scores": {"words": 0.99, "numbers": 0.25},
            "category_applied_input_types": {"words": ["text"], "numbers": ["text"]},
        }
    ]


def test_text_parts_are_one_input(gateway: Gateway) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": FORBIDDEN}]
    assert [r["flagged"] for r in gateway.http.post("/v1/moderations", json={"input": parts}).json()["results"]] == [True]


@pytest.mark.parametrize("value", [None, 3, [], ["a", 3], [{"type": "image_url", "image_url": {"url": "u"}}], ["x"] * 257, {"a": 1}])
def test_an_input_that_is_no_text_is_a_400(gateway: Gateway, value: object) -> None:
    response = gateway.http.post("/v1/moderations", json={"input": value})
    assert (response.status_code, "`input`" in response.text) == (400, True)


@pytest.mark.parametrize("on_error", ["closed", "open"])
def test_an_input_that_cannot_be_scored_is_never_called_harmless(gateways: Callable[..., Gateway], on_error: str) -> None:
    gateway = gateways(on_error=on_error)
    response = gateway.http.post("/v1/moderations", json={"input": ["fine", BREAKS]})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "not_scored")
