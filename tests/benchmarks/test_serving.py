"""What the gateway's benchmark counts is what happened, and the scorer's work grows with the stream and not with its square."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from serving.client import added_ms, body, stream
from serving.growth import growth
from serving.leak import MODEL, Way, leak
from serving.processes import Server, ours
from serving.report import page


@pytest.fixture(scope="module")
def upstream() -> Iterator[Server]:
    with ours("upstream") as server:
        yield server


def test_the_stub_unguarded_leaks_and_the_test_sees_it(upstream: Server) -> None:
    (row,) = leak([Way("nothing", upstream.url, {})], upstream.url, upstream.url, 2)
    assert (row["words_out"], row["words_after"], row["forbidden_out"], row["finish"]) == ("59", "30", 2, ["stop"])


def test_charter_lets_out_thirty_words_and_none_after(upstream: Server) -> None:
    with ours("charter", f"{upstream.url}/v1") as charter:
        (row,) = leak([Way("Charter", charter.url, {})], upstream.url, upstream.url, 2)
    assert (row["words_out"], row["words_after"], row["forbidden_out"], row["finish"]) == ("30", "0", 0, ["content_filter"])


def test_a_clean_stream_costs_a_call_a_chunk_and_every_token_once(upstream: Server) -> None:
    small, large = growth(upstream.url, (20, 200))
    assert large["tokens"] - small["tokens"] == 180
    assert large["calls"] - small["calls"] == 180


def test_a_client_that_leaves_has_left(upstream: Server) -> None:
    seen = asyncio.run(stream(upstream.url, body(MODEL, True), leave_after=3))
    assert 3 <= len(seen.words) < 60
    assert seen.finish == ""


def test_the_interval_holds_the_difference_of_medians() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(40):
        a, b = rng.normal(5e-3, 1e-3, 60), rng.normal(3e-3, 1e-3, 60)
        value, low, high = added_ms(a, b, seed)
        assert low <= value <= high
        held += low <= 2.0 <= high
    assert held >= 34


def test_a_page_of_nothing_says_that_nothing_was_run() -> None:
    empty: dict[str, Any] = {part: [] for part in ("leak", "overhead", "growth", "faults")}
    told = page({**empty, "left_out": ["leak: nemo is not there"], "command": "c", "machine": "m", "date": "d"})
    assert told.count("Not run.\n") == 4
    assert "leak: nemo is not there" in told
