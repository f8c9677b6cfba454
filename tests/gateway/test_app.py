"""The other paths."""

from __future__ import annotations

import subprocess
import sys

from tests.gateway.conftest import FORBIDDEN, Gateway, answers


def test_healthz_tells_the_guard_and_what_was_counted(gateway: Gateway) -> None:
    before = gateway.counters()
    gateway.ask(answers("x"), FORBIDDEN)
    health = gateway.http.get("/healthz").json()
    assert (health["status"], health["guard"], health["mode"]) == ("ok", {"name": "oracle", "hash": "0123456789abcdef"}, "enforce")
    counted = {name: health["counters"][name] - before[name] for name in before}
    assert {name: n for name, n in counted.items() if n} == {"requests": 1, "flagged_prompts": 1, "blocked_prompts": 1}


def test_models_are_the_upstreams(gateway: Gateway) -> None:
    assert [model.id for model in gateway.openai.models.list()] == ["scripted"]
    assert gateway.http.get("/v1/models").headers["x-upstream"] == "yes"


def test_unknown_paths_and_methods_are_json_errors(gateway: Gateway) -> None:
    for response, status in ((gateway.http.get("/v1/nope"), 404), (gateway.http.get("/v1/chat/completions"), 405)):
        assert response.status_code == status
        assert "is not served here" in response.json()["error"]["message"]


def test_a_gateway_by_itself_loads_no_model() -> None:
    """With the scorer in another process it stays small."""
    code = "import sys, charter.gateway.serve, charter.guard.remote; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
