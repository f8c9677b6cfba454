"""The gateway against a stub upstream, beside LiteLLM's proxy and NeMo Guardrails: leaks, overhead, the scorer's work, faults.

    .venv/bin/python benchmarks/gateway.py [--only leak overhead growth faults] [--short] [--soak 600] [--state FILE] [--write docs/gateway-benchmarks.md]

Peers run in environments of their own (`serving/peers.py` makes them); those that aren't there are named and left out. What was measured is kept in
--state, so parts can be run one by one; --write makes the page of all that is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from serving import peers
from serving.client import added_ms, body, load, sequential
from serving.faults import faults
from serving.growth import growth, growth_of_litellm
from serving.leak import MODEL, Way, leak
from serving.processes import Server, ours
from serving.report import page

PARTS = ("leak", "overhead", "growth", "faults")
SIZES = (50, 500, 5_000)


def main() -> None:
    """Run what is asked for, print it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--peers", nargs="*", choices=("litellm", "nemo"), default=("litellm", "nemo"))
    parser.add_argument("--short", action="store_true", help="fewer repetitions")
    parser.add_argument("--soak", type=float, default=600.0, help="seconds")
    parser.add_argument("--state", type=Path, default=Path("runs/gateway-benchmarks.json"))
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    found = json.loads(asked.state.read_text()) if asked.state.is_file() else {"left_out": []}
    for part in asked.only:
        found["left_out"] = [why for why in found["left_out"] if not why.startswith(f"{part}:")]
        found[part] = globals()[f"run_{part}"](asked, found)
        _keep(asked, found)
    if asked.write:
        asked.write.write_text(page({**{part: [] for part in PARTS}, **found}))
    print(page({**{part: [] for part in PARTS}, **found}))


def run_leak(asked: argparse.Namespace, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Charter, then each peer in its settings; one peer's server at a time."""
    n = 10 if asked.short else 40
    with ExitStack() as stack:
        upstream = stack.enter_context(ours("upstream"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def measure(server: Server, ways: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
            return leak([Way(name, server.url, fields) for name, fields in ways.items()], upstream.url, upstream.url, n)

        charter = stack.enter_context(ours("charter", f"{upstream.url}/v1"))
        rows = measure(charter, {"Charter": {}})
        settings = {f"LiteLLM 1.109.1, {_told(name)}": {"guardrails": [name]} for name in peers.GUARDRAILS}
        start = partial(peers.litellm, upstream.url, upstream.url, folder)
        rows += _beside("litellm", "leak", asked, found, start, lambda server: measure(server, settings))
        configs = {f"NeMo 0.24.1, {told}": {"guardrails": {"config_id": name}} for name, told in peers.CONFIGS.items()}
        start = partial(peers.nemo, upstream.url, folder, MODEL)
        return rows + _beside("nemo", "leak", asked, found, start, lambda server: measure(server, configs))


def run_overhead(asked: argparse.Namespace, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Latency in turn with the upstream asked directly, then requests a second."""
    with ExitStack() as stack:
        upstream = stack.enter_context(ours("upstream"))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        charter = stack.enter_context(ours("charter", f"{upstream.url}/v1", str(folder / "audit.db")))
        rows = [
            _overhead("the upstream, directly", upstream, upstream, asked, {}),
            _overhead("Charter, audit log on", charter, upstream, asked, {}),
        ]

        def measure(server: Server) -> list[dict[str, Any]]:
            guarded = _overhead("LiteLLM 1.109.1, guardrail before and after", server, upstream, asked, {"guardrails": ["default"]})
            return [_overhead("LiteLLM 1.109.1, no guardrail", server, upstream, asked, {}), guarded]

        return rows + _beside("litellm", "overhead", asked, found, partial(peers.litellm, upstream.url, upstream.url, folder), measure)


def _overhead(name: str, server: Server, upstream: Server, asked: argparse.Namespace, fields: dict[str, Any]) -> dict[str, Any]:
    n, seconds = (200, 5.0) if asked.short else (1_000, 20.0)
    request, plain = body("words=10", **fields), body("words=10")
    direct, mine = asyncio.run(sequential([(upstream.url, plain), (server.url, request)], n))
    failed, times = asyncio.run(load(server.url, request, 16, seconds))
    return {
        "way": name, "n": n, "p50_ms": sorted(mine)[n // 2] * 1e3, "added_ms": added_ms(mine, direct), "per_s": len(times) / seconds,
        "seconds": seconds, "failed": failed, "mb": server.resident_mb,
    }  # fmt: skip


def run_growth(asked: argparse.Namespace, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Charter to 5,000 chunks; LiteLLM to 500, because its work grows with the square."""
    with ours("upstream") as upstream, tempfile.TemporaryDirectory() as folder:

        def measure(server: Server) -> list[dict[str, Any]]:
            return growth_of_litellm(server.url, upstream.url, "every", SIZES[:2])

        rows = growth(upstream.url, SIZES)
        return rows + _beside("litellm", "growth", asked, found, partial(peers.litellm, upstream.url, upstream.url, Path(folder)), measure)


def run_faults(asked: argparse.Namespace, found: dict[str, Any]) -> list[dict[str, Any]]:
    """One after another, each with servers of its own."""
    rows = []
    for row in faults(20, 10.0 if asked.short else 60.0, 1_000, asked.soak):
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _beside(
    peer: str, part: str, asked: argparse.Namespace, found: dict[str, Any], start: Callable[[], AbstractContextManager[Server]],
    measure: Callable[[Server], list[dict[str, Any]]],
) -> list[dict[str, Any]]:  # fmt: skip
    """A peer's rows; none, and why, where it can't be run."""
    why = peers.missing(peer) if peer in asked.peers else f"{peer} was not asked for"
    if why is None:
        try:
            with start() as server:
                return measure(server)
        except RuntimeError as error:
            why = f"{peer}: {str(error).splitlines()[0]}"
    found["left_out"].append(f"{part}: {why}")
    return []


def _told(name: str) -> str:
    settings = ", ".join(f"{k}: {v}" for k, v in peers.GUARDRAILS[name].items())
    return settings or "default (every 5th chunk)"


def _keep(asked: argparse.Namespace, found: dict[str, Any]) -> None:
    words = ["benchmarks/gateway.py", *(["--short"] if asked.short else []), "--soak", f"{asked.soak:g}"]
    found |= {
        "command": "python " + " ".join(words), "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}, load average {os.getloadavg()[1]:.1f}",
    }  # fmt: skip
    asked.state.parent.mkdir(parents=True, exist_ok=True)
    asked.state.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
