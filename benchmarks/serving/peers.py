"""LiteLLM and NeMo Guardrails, each in an environment of its own under the user's cache, never in Charter's.

.venv/bin/python -m serving.peers        (in benchmarks/) makes both environments; a few minutes and 1.1 GB
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.processes import Server, free_port, running
from serving.stub import FORBIDDEN

CACHE = Path(os.environ.get("CHARTER_PEERS", Path.home() / ".cache" / "charter-peers"))
PACKAGES = {"litellm": ["litellm[proxy]==1.109.1"], "nemo": ["nemoguardrails[server]==0.24.1", "langchain-openai"]}
# litellm pins the very latest of these two; migrations and root certificates play no part here, and a mirror may lag behind
LOOSE = ["litellm-proxy-extras>=0.4,<0.5", "certifi>=2026"]
GUARDRAILS = {
    "default": {},
    "every": {"streaming_sampling_rate": 1},
    "safest": {"streaming_sampling_rate": 1, "streaming_transform_mode": "incremental_diff"},
}

CONFIGS = {"default": "default (stream_first, chunks of 200)", "safest": "stream_first: false, chunk_size: 1"}


def missing(name: str) -> str | None:
    """Why a peer can't be run; None where it can."""
    if (CACHE / name / ".made").is_file():
        return None
    return f"{name} has no environment in {CACHE}: run `python -m serving.peers` in benchmarks/"


def make(name: str) -> None:
    """Make a peer's environment. uv resolves these trees in seconds; pip takes minutes."""
    place = CACHE / name
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    subprocess.run([place / "bin" / "pip", "install", "-q", "uv"], check=True)
    overrides = CACHE / "overrides.txt"
    overrides.write_text("\n".join(LOOSE) + "\n")
    command = [place / "bin" / "uv", "pip", "install", "-q", "--python", place / "bin" / "python", "--override", overrides, *PACKAGES[name]]
    subprocess.run(command, check=True)
    (place / ".made").touch()


@contextmanager
def litellm(upstream: str, guardrail: str, folder: Path) -> Iterator[Server]:
    """LiteLLM's proxy: every model goes to `upstream`; a request chooses its guardrails by name ("default", "every", "safest")."""
    config = {
        "model_list": [{"model_name": "*", "litellm_params": {"model": "openai/*", "api_base": f"{upstream}/v1", "api_key": "none"}}],
        "guardrails": [
            {"guardrail_name": name, "litellm_params": {
                "guardrail": "generic_guardrail_api", "mode": ["pre_call", "post_call"], "api_base": guardrail, **more,
            }}
            for name, more in GUARDRAILS.items()
        ],
    }  # fmt: skip
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "PYTHONPATH": "",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    command = [
        str(CACHE / "litellm" / "bin" / "litellm"),
        "--config",
        str(path),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--num_workers",
        "1",
    ]
    with running(command, port, "/health/liveliness", env, folder / "litellm.log") as server:
        yield server


@contextmanager
def nemo(upstream: str, folder: Path, model: str) -> Iterator[Server]:
    """NeMo's server, with the forbidden word as a pattern of its output rail: config "default", and "safest" (stream_first: false)."""
    for name, more in (("default", {}), ("safest", {"stream_first": False, "chunk_size": 1, "context_size": 0})):
        place = folder / "nemo" / name
        place.mkdir(parents=True, exist_ok=True)
        config = {
            "models": [
                {"type": "main", "engine": "openai", "model": model, "parameters": {"base_url": f"{upstream}/v1", "api_key": "none"}}
            ],
            "rails": {
                "config": {"regex_detection": {"output": {"patterns": [FORBIDDEN]}}},
                "output": {"flows": ["regex check output"], "streaming": {"enabled": True, **more}},
            },
        }
        (place / "config.yml").write_text(json.dumps(config))
    port = free_port()
    command = [
        str(CACHE / "nemo" / "bin" / "nemoguardrails"),
        "server",
        "--port",
        str(port),
        "--config",
        str(folder / "nemo"),
        "--disable-chat-ui",
    ]
    env = {"OPENAI_API_KEY": "none", "PYTHONPATH": "", "NEMO_GUARDRAILS_TELEMETRY_ENABLED": "false", "DO_NOT_TRACK": "1"}
    with running(command, port, "/v1/rails/configs", env, folder / "nemo.log") as server:
        yield server


if __name__ == "__main__":
    for peer in PACKAGES:
        if missing(peer):
            make(peer)
        print(peer, "is in", CACHE / peer)
