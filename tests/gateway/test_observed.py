"""Every verdict of every request is found once, with what was done about it, by log, metrics, spans and lines; content by none."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.conftest import BREAKS, FORBIDDEN, Gateway, Oracle, Script, Scripted, answers, chunk, plays, says, serving
from waiting import until

from charter.gateway.app import create_app
from charter.gateway.audit.finding import COLUMNS
from charter.gateway.audit.log import AuditLog, open_log
from charter.gateway.logs import JsonLines
from charter.gateway.settings import Settings
from charter.gateway.spans import Spans

SECRET = "quincunx"


@dataclass
class Watched(Gateway):
    """A gateway with its audit log and all that it tells."""

    log: AuditLog
    path: Path
    spans: InMemorySpanExporter

    def rows(self, response: httpx2.Response | None = None) -> list[dict[str, Any]]:
        """What the database has once it has all; of one request where that is given."""
        until(lambda: self.log.counts.written == self.log.counts.found and not self.metric("guardrails_requests_active"))
        until(lambda: self.log.counts.written == self.log.counts.found)
        connection = sqlite3.connect(self.path)
        found = [
            dict(zip(COLUMNS, row, strict=True))
            for row in connection.execute(f"SELECT {', '.join(COLUMNS)} FROM charter_verdicts ORDER BY time")
        ]
        connection.close()
        return [row for row in found if response is None or row["request"] == response.headers["x-charter-request"]]

    def metric(self, name: str, **labels: str) -> float:
        """A figure as Prometheus reads it; the sum over labels that are not named."""
        text = self.http.get("/metrics").text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())


@contextmanager
def watching(upstream: Scripted, folder: Path, **more: Any) -> Iterator[Watched]:
    guard, exporter, provider = Oracle(), InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    log = open_log(str(folder / "log.db"))
    app = create_app(guard, Settings(upstream_url=upstream.url, **more), log, Spans(provider))
    with serving(app) as url, httpx2.Client(base_url=url, timeout=20, trust_env=False) as http, OpenAI(base_url=url, api_key="x") as client:
        yield Watched(url, guard, upstream, http, client, log, folder / "log.db", exporter)
    log.close(60)


@pytest.fixture(scope="module")
def watched(upstream: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watching(upstream, tmp_path_factory.mktemp("enforce")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def shadow(upstream: Scripted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watching(upstream, tmp_path_factory.mktemp("shadow"), mode="shadow", log_content=True) as gateway:
        yield gateway


def told(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["stage"], r["choice"], bool(r["flagged"]), r["action"], r["clause"], r["position"], r["error"] is not None) for r in rows]


PASSED = ("prompt", 0, False, "allow", None, None, False)
CASES: list[tuple[Script, str, bool, list[tuple[Any, ...]]]] = [
    (answers("x"), f"say {FORBIDDEN}", False, [("prompt", 0, True, "block", "words", 1, False)]),
    (answers("one two"), "hello", False, [PASSED, ("reply", 0, False, "allow", None, None, False)]),
    (says("one ", "two"), "hello", True, [PASSED, ("reply", 0, False, "allow", None, None, False)]),
    (answers(f"one {FORBIDDEN}"), "hello", False, [PASSED, ("reply", 0, True, "block", "words", 1, False)]),
    (says("one ", f"{FORBIDDEN} ", "two"), "hello", True, [PASSED, ("reply", 0, True, "block", "words", 1, False)]),
    (says("one ", f"{FORBIDDEN} ", done=False, finish=None), "hello", True, [PASSED, ("reply", 0, True, "block", "words", 1, False)]),
    (answers("x"), BREAKS, False, [("prompt", 0, False, "block", None, None, True)]),
    (says(f"one {BREAKS} "), "hello", True, [PASSED, ("reply", 0, False, "block", None, None, True)]),
    (answers("x", status=429), "hello", False, [PASSED]),
    (
        plays(chunk({"content": "a "}), chunk({"content": f"{FORBIDDEN} "}, index=1), chunk({"content": "b"}, "stop")), "hello", True,
        [PASSED, ("reply", 1, True, "block", "words", 0, False), ("reply", 0, False, "allow", None, None, False)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("script", "prompt", "stream", "expected"), CASES)
def test_each_verdict_is_logged_once_with_its_action(
    script: Script, prompt: str, stream: bool, expected: list[tuple[Any, ...]], watched: Watched
) -> None:
    response = watched.ask(script, prompt, stream=stream, n=1 + any(row[1] for row in expected))
    rows = watched.rows(response)
    assert told(rows) == expected
    assert {(r["guard"], r["guard_hash"], r["surface"], r["mode"]) for r in rows} == {
        ("oracle", "0123456789abcdef", "/v1/chat/completions", "enforce")
    }
    assert all(r["latency_ms"] > 0 for r in rows)
    assert all(r["content"] is None for r in rows)


def test_shadow_mode_finds_what_it_allows_and_keeps_content_where_asked(shadow: Watched) -> None:
    response = shadow.ask(says("one ", f"{FORBIDDEN} ", "two"), f"say {FORBIDDEN}", stream=True)
    rows = shadow.rows(response)
    assert told(rows) == [("prompt", 0, True, "allow", "words", 1, False), ("reply", 0, True, "allow", "words", 1, False)]
    assert json.loads(rows[0]["content"]) == [{"role": "user", "content": f"say {FORBIDDEN}"}]
    assert json.loads(rows[1]["content"])[1]["content"].startswith(f"one {FORBIDDEN}")


def test_moderations_are_reported_and_not_acted_on(watched: Watched) -> None:
    response = watched.http.post("/v1/moderations", json={"input": ["fine", FORBIDDEN]})
    assert told(watched.rows(response)) == [
        ("prompt", 0, False, "report", None, None, False),
        ("prompt", 0, True, "report", "words", 0, False),
    ]


def test_a_client_that_goes_away_leaves_its_verdicts(watched: Watched) -> None:
    script = says("one ", "two ", done=False, finish=None)
    script.then = "hang"
    body = {"model": watched.upstream.plays(script), "messages": [{"role": "user", "content": "x"}], "stream": True}
    with watched.http.stream("POST", "/v1/chat/completions", json=body) as response:
        next(response.iter_bytes())
    until(lambda: len(watched.rows(response)) == 2)
    assert [r["stage"] for r in watched.rows(response)] == ["prompt", "reply"]


@given(pieces=st.lists(st.sampled_from([f"{SECRET} ", f"{FORBIDDEN} ", "a ", BREAKS]), max_size=5), stream=st.booleans())
@settings(max_examples=8)
def test_without_the_flag_no_content_is_in_database_spool_metrics_or_spans(pieces: list[str], stream: bool, watched: Watched) -> None:
    response = watched.ask(says(*pieces) if stream else answers("".join(pieces)), f"{SECRET} hello", stream=stream, user=SECRET)
    assert [r["stage"] for r in watched.rows(response)] == ["prompt", "reply"] if pieces or not stream else ["prompt"]
    kept = b"".join(
        file.read_bytes() for file in [*watched.path.parent.iterdir(), *watched.path.with_name("log.db.spool").iterdir()] if file.is_file()
    )
    assert b"prompt" in kept
    told = watched.http.get("/metrics").text + "".join(span.to_json() for span in watched.spans.get_finished_spans())
    for word in (SECRET, FORBIDDEN, BREAKS):
        assert word.encode() not in kept
        assert word not in told


def test_the_metrics_count_what_happened(watched: Watched, shadow: Watched) -> None:
    names = {
        "litellm_guardrail_requests_total": {"status": "blocked", "hook_type": "post_call"}, "guardrails_requests_total": {},
        "guardrails_requests_blocked_total": {}, "guardrails_stream_rejections_total": {},
        "charter_verdicts_total": {"stage": "reply", "verdict": "flagged", "action": "block", "clause": "words"},
        "charter_halt_position_count": {"stage": "reply"}, "charter_audit_found_total": {}, "litellm_guardrail_latency_seconds_count": {"hook_type": "post_call"},
    }  # fmt: skip
    watched.rows()
    before = {name: watched.metric(name, **labels) for name, labels in names.items()}
    watched.ask(says("one ", f"{FORBIDDEN} "), stream=True)
    watched.rows()
    grown = {name: watched.metric(name, **labels) - before[name] for name, labels in names.items()}
    assert grown == {**dict.fromkeys(names, 1), "charter_audit_found_total": 2}
    assert watched.metric("charter_released_unscored_chars_total") == 0
    assert watched.metric("charter_released_after_verdict_chars_total") == 0
    assert watched.metric("charter_audit_state", charter_audit_state="ok") == 1
    assert watched.metric("charter_audit_lost_total") == 0
    errors = watched.metric("litellm_guardrail_errors_total")
    watched.ask(answers("x"), BREAKS)
    watched.rows()
    assert watched.metric("litellm_guardrail_errors_total") == errors + 1
    shadow.ask(answers(f"one {FORBIDDEN} two"))
    assert shadow.metric("charter_released_after_verdict_chars_total") > 0
    assert shadow.metric("guardrails_requests_blocked_total") == 0


def test_open_streams_and_held_characters_are_seen_while_they_last(watched: Watched) -> None:
    watched.rows()
    script = says("one ", "half", done=False, finish=None)
    script.then = "hang"
    body = {"model": watched.upstream.plays(script), "messages": [{"role": "user", "content": "x"}], "stream": True}
    with watched.http.stream("POST", "/v1/chat/completions", json=body) as response:
        blocks = response.iter_bytes()  # let go of, it would close the stream
        next(blocks)
        with httpx2.Client(base_url=watched.url, trust_env=False) as other:
            until(lambda: f"charter_held_chars {float(len(' half'))}" in other.get("/metrics").text)
            assert "guardrails_stream_active 1.0" in other.get("/metrics").text
    until(lambda: watched.metric("guardrails_stream_active") == 0)
    assert watched.metric("charter_held_chars") == 0


def test_spans_keep_verdict_and_action_apart_below_the_callers_own(watched: Watched, shadow: Watched) -> None:
    for gateway, action in ((watched, "block"), (shadow, "allow")):
        gateway.rows()
        gateway.spans.clear()
        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        gateway.http.post(
            "/v1/chat/completions", headers={"traceparent": f"00-{trace}-{parent}-01"},
            json={"model": gateway.upstream.plays(answers("x")), "messages": [{"role": "user", "content": FORBIDDEN}]},
        )  # fmt: skip
        gateway.rows()
        spans = {span.name: span for span in gateway.spans.get_finished_spans()}
        request, run = spans["POST /v1/chat/completions"], spans["apply_guardrail oracle llm_input"]
        about = dict(run.attributes or {})
        assert about["gen_ai.security.verdict.type"] == "flagged"
        assert about["gen_ai.security.action.type"] == action
        assert about["gen_ai.security.policy.rule.id"] == "words"
        assert _ids(request) == (int(trace, 16), int(parent, 16))
        assert run.parent is not None
        assert request.context is not None
        assert run.parent.span_id == request.context.span_id
        assert (run.start_time or 0) < (run.end_time or 0)


def test_a_request_is_one_line_of_json_without_content(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "charter.requests"):
        response = watched.ask(says("one ", f"{FORBIDDEN} ", SECRET), SECRET, stream=True)
        watched.http.get("/healthz")
        watched.rows()
    (record,) = [r for r in caplog.records if r.name == "charter.requests"]
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["request"], line["path"], line["status"], line["streamed"]) == (
        response.headers["x-charter-request"],
        "/v1/chat/completions",
        200,
        True,
    )
    assert [(v["stage"], v["verdict"], v["action"], v["clause"]) for v in line["verdicts"]] == [
        ("prompt", "passed", "allow", None),
        ("reply", "flagged", "block", "words"),
    ]
    assert not any(word in text for word in (SECRET, FORBIDDEN))


def test_a_fault_is_a_line_too() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "it failed", (), (type(error), error, error.__traceback__))
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "ValueError" in json.loads(text)["fault"]


def test_the_dashboard_asks_for_metrics_that_exist(watched: Watched) -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "docs" / "grafana.json").read_text())
    asked = {name for panel in dashboard["panels"] for t in panel.get("targets", []) for name in _names(t["expr"])}
    text = watched.http.get("/metrics").text
    there = {s.name for family in text_string_to_metric_families(text) for s in family.samples}
    told = {family.name for family in text_string_to_metric_families(text)}
    suffixed = {f"{name}{end}" for name in told for end in ("", "_total", "_bucket", "_count", "_sum")}  # those without a sample yet
    assert asked
    assert asked <= there | suffixed


def _names(expression: str) -> set[str]:
    import re

    return set(re.findall(r"\b(?:charter|guardrails|litellm)_\w+", expression))


def _ids(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent is not None
    return span.parent.trace_id, span.parent.span_id
