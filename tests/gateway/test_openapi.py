"""The published document matches the routes, and no input that schemathesis makes of it, valid or not, is a fault of the gateway's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.gateway.conftest import FORBIDDEN, Oracle, chunk, event, named, serving

from charter.gateway.app import create_app
from charter.gateway.keys import Key, hashed, write_keys
from charter.gateway.openapi import document
from charter.gateway.settings import Settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'charter[dev]'")
pytestmark = pytest.mark.filterwarnings("ignore")

SAYS = f"fine so far {FORBIDDEN} never"
REPLIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"choices": [{"index": 0, "message": {"role": "assistant", "content": SAYS}, "finish_reason": "stop"}]},
    "/v1/completions": {"choices": [{"index": 0, "text": SAYS, "finish_reason": "stop"}]},
    "/v1/messages": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": SAYS}], "stop_reason": "end_turn"},
    "/v1/responses": {"object": "response", "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": SAYS}]}]},
}  # fmt: skip
STREAMS = {
    "/v1/chat/completions": b"".join(event(c) for c in (chunk({"content": SAYS}), chunk(finish="stop"), "[DONE]")),
    "/v1/completions": event({"choices": [{"index": 0, "text": SAYS, "finish_reason": "stop"}]}) + event("[DONE]"),
    "/v1/messages": named({"type": "message_stop"}),
    "/v1/responses": named({"type": "response.completed", "response": REPLIES["/v1/responses"]}),
}


async def stub(request: Request) -> Response:
    """An upstream that always answers."""
    if (await request.json()).get("stream") is True:
        return Response(STREAMS[request.url.path], media_type="text/event-stream")
    return JSONResponse(REPLIES[request.url.path])


async def listed(_request: Request) -> Response:
    return JSONResponse({"object": "list", "data": []})


@pytest.fixture(scope="module")
def gateway() -> Iterator[tuple[str, Starlette]]:
    app = Starlette(routes=[*(Route(path, stub, methods=["POST"]) for path in REPLIES), Route("/v1/models", listed)])
    with serving(app) as upstream:
        guarded = create_app(Oracle(), Settings(upstream + "/v1"))
        with serving(guarded) as url:
            yield url, guarded


def operations() -> list[Any]:
    return [result.ok() for result in schemathesis.openapi.from_dict(document()).get_all_operations()]


def test_it_names_every_route_and_no_other(gateway: tuple[str, Starlette]) -> None:
    pages = {"/"}
    served = {
        (route.path, method)
        for route in gateway[1].routes
        if isinstance(route, Route) and route.path not in pages and not route.path.startswith("/playground")
        for method in (route.methods or set()) - {"HEAD"}
    }
    told = {(path, method.upper()) for path, methods in document()["paths"].items() for method in methods if method != "parameters"}
    assert served == told


def test_it_is_served_as_it_stands(gateway: tuple[str, Starlette]) -> None:
    import httpx2

    found = httpx2.get(gateway[0] + "/openapi.json", trust_env=False)
    assert found.json() == json.loads(json.dumps(document()))


CASES = [
    (o, mode) for o in operations() for mode in ("POSITIVE", "NEGATIVE") if mode == "POSITIVE" or o.method == "post"
]  # others have no body


@pytest.mark.parametrize(("operation", "mode"), CASES, ids=lambda value: getattr(value, "label", value))
def test_no_input_is_a_fault_of_ours(gateway: tuple[str, Starlette], operation: Any, mode: str) -> None:
    checks = [
        schemathesis.checks.not_a_server_error,
        *(getattr(schemathesis.specs.openapi.checks, name) for name in ("status_code_conformance", "content_type_conformance", "response_schema_conformance")),
    ]  # fmt: skip
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=getattr(schemathesis.GenerationMode, mode)))
    @settings(
        max_examples=12, phases=[Phase.generate], suppress_health_check=list(HealthCheck), deadline=None, derandomize=True, database=None
    )
    def run(case: Any) -> None:
        statuses.add(case.call_and_validate(base_url=gateway[0], checks=checks).status_code)

    run()
    # a few that fit the document are refused nevertheless: keys that differ in case only, an `n` of 2.0
    assert statuses & ({400, 404} if mode == "NEGATIVE" else {404} if "{id}" in operation.path else {200, 201})


def test_without_a_key_every_operation_says_so(gateway: tuple[str, Starlette], tmp_path: Any) -> None:
    import httpx2

    write_keys(tmp_path / "k", [Key(name="a", sha256=hashed("a"))])
    with serving(create_app(Oracle(), Settings("http://127.0.0.1:9/v1", keys=tmp_path / "k"))) as url:
        for path, methods in document()["paths"].items():
            for method in set(methods) - {"parameters"}:
                status = httpx2.request(method, url + path, trust_env=False).status_code
                assert (status == 401) == (path not in ("/healthz", "/readyz", "/openapi.json")), path
