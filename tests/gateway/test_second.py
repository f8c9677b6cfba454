"""A second guard sees the same traffic and changes no byte; both verdicts are counted and logged."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx2
from tests.gateway.conftest import FORBIDDEN, Gateway, Oracle, OracleSession, Scripted, answers, content, says, serving

from charter.gateway.app import create_app
from charter.gateway.audit import query
from charter.gateway.audit.log import open_log
from charter.gateway.audit.store import open_store
from charter.gateway.second import MOST_WAITING, Second
from charter.gateway.settings import Settings
from charter.guard.holdback import GuardLike
from charter.records import Turn


class Other(Oracle):
    """Flags another word; breaks and stalls as the oracle does."""

    name, hash = "other", "fedcba9876543210"

    def restricted(self, segment: str) -> bool:
        super().restricted(segment)
        return "harmless" in segment


class Broken(Other):
    def open(self, turns: tuple[Turn, ...]) -> OracleSession:
        raise RuntimeError("no such luck")


def ask(upstream: Scripted, shadow: GuardLike | None, log: Path | None = None) -> tuple[list[Any], dict[str, Any], str]:
    """The bytes of some requests, and then healthz and metrics once the second guard is done."""
    audit = open_log(str(log)) if log else None
    with (
        serving(create_app(Oracle(), Settings(upstream.url), audit, shadow=shadow)) as url,
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as http,
    ):
        gateway = Gateway(url, None, upstream, http, None)  # type: ignore[arg-type]
        said = [
            content(gateway.stream(says("one ", "two ", "three"))),
            content(gateway.stream(says("one ", "harmless ", "three"))),
            content(gateway.stream(says("one ", f"{FORBIDDEN} ", "three"))),
            gateway.ask(answers("one two")).content,
            gateway.ask(answers("one two"), f"{FORBIDDEN} harmless").content.replace(b"x", b""),
            http.post("/v1/guard/check", json={"input": "kaput"}).status_code,
        ]
        end = time.monotonic() + 60
        while shadow and time.monotonic() < end:
            told = http.get("/healthz").json()["shadow_guard"]
            if sum(told["prompt"].values()) + sum(told["reply"].values()) + told["failed"] >= 9:
                break
            time.sleep(0.02)
        return said, http.get("/healthz").json(), http.get("/metrics").text


def test_both_verdicts_are_counted_and_logged_and_no_byte_changes(upstream: Scripted, tmp_path: Path) -> None:
    said, health, measured = ask(upstream, Other(), tmp_path / "log.db")
    told = health["shadow_guard"]
    assert (told["name"], told["hash"], told["failed"], told["dropped"]) == ("other", Other.hash, 0, 0)
    assert told["prompt"] == {"both": 1, "neither": 4, "first_alone": 0, "second_alone": 0}
    assert told["reply"] == {"both": 0, "neither": 2, "first_alone": 1, "second_alone": 1}
    assert 'charter_shadow_verdicts_total{stage="reply",verdicts="second_alone"} 1.0' in measured
    plain, _, _ = ask(upstream, None)
    assert [s for s in said if isinstance(s, str)] == [s for s in plain if isinstance(s, str)]
    with sqlite3.connect(tmp_path / "log.db") as connection:
        rows = connection.execute("SELECT guard, mode, action, COUNT(*) FROM charter_verdicts GROUP BY 1, 2, 3 ORDER BY 1, 2, 3").fetchall()
    connection.close()
    assert rows == [("oracle", "enforce", "allow", 7), ("oracle", "enforce", "block", 3), ("other", "shadow-guard", "allow", 9)]
    store = open_store(str(tmp_path / "log.db"))
    summary = query.summary(store, query.Chosen())
    store.close()
    assert summary["verdicts"] == 10  # the second guard's are no verdicts of the gateway
    counted = {"both": 1, "first_alone": 1, "second_alone": 1, "neither": 6}
    assert summary["shadow_guards"] == [{"guard_hash": Other.hash, "first": Oracle.hash, **counted}]


def test_a_second_guard_that_breaks_touches_nobody(upstream: Scripted) -> None:
    said, health, _ = ask(upstream, Broken())
    plain, sound, _ = ask(upstream, None)
    assert [s for s in said if isinstance(s, str)] == [s for s in plain if isinstance(s, str)]
    assert health["counters"] == sound["counters"]
    assert (health["shadow_guard"]["failed"], "shadow_guard" in sound) == (9, False)


def test_one_that_falls_behind_drops_what_it_has_no_time_for() -> None:
    from charter.gateway.audit.finding import Finding, now

    second = Second(Other())
    slow = (Turn("user", "molasses"),)
    finding = Finding("i", now(), "r", "/", "prompt", 0, "g", "h", "enforce", False, 0.1, None, None, "allow", None, 1.0, None)
    for _ in range(MOST_WAITING + 50):
        second.compare(finding, slow)
    assert second.counts.dropped >= 40
    second.close()
    assert json.dumps(second.told())
