"""OpenTelemetry spans: one for each request, one below it for each run of the guard, verdict and action apart, never content.

Attribute names follow the open proposal for guardrails (open-telemetry/semantic-conventions-genai pull request 427) and may
change with it. Where spans go is told by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME ...).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from charter.errors import MissingExtra
from charter.gateway.audit.finding import Finding

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

TARGETS = {"prompt": "llm_input", "reply": "llm_output"}


class Spans:
    """Makes the spans of a gateway."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("charter.gateway")

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str], request_id: str) -> Iterator[Span]:
        """The span of a request, below the caller's own where its `traceparent` names one."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"http.request.method": method, "url.path": path, "charter.request.id": request_id}
        context = TraceContextTextMapPropagator().extract(headers)
        with self._tracer.start_as_current_span(f"{method} {path}", context, SpanKind.SERVER, about) as span:
            yield span

    def found(self, finding: Finding) -> None:
        """The span of a run of the guard that has just ended. It lasts as long as the scoring took."""
        end = time.time_ns()
        name = f"apply_guardrail {finding.guard} {TARGETS[finding.stage]}"
        span = self._tracer.start_span(name, attributes=_attributes(finding), start_time=end - int(finding.latency_ms * 1e6))
        if finding.error:
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR, finding.error)
        span.end(end)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def open_spans() -> Spans:
    """Spans that are sent over OTLP/HTTP, in batches, off the event loop.

    Raises:
        MissingExtra: without the packages of the extra `otel`.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtra("--otel needs packages more: pip install 'charter[otel]'") from error
    os.environ.setdefault("OTEL_SERVICE_NAME", "charter")
    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)


def _attributes(finding: Finding) -> dict[str, str | int | float | bool]:
    about: dict[str, str | int | float | bool | None] = {
        "gen_ai.operation.name": "apply_guardrail",
        "gen_ai.security.guardrail.name": finding.guard,
        "gen_ai.security.guardrail.id": finding.guard_hash,
        "gen_ai.security.target.type": TARGETS[finding.stage],
        "gen_ai.security.verdict.type": finding.outcome,
        "gen_ai.security.action.type": finding.action,
        "gen_ai.security.policy.rule.id": finding.clause,
        "gen_ai.security.risk.score": None if finding.error else finding.score,
        "charter.mode": finding.mode,
        "charter.choice": finding.choice,
        "charter.position": finding.position,
        "charter.finding.id": finding.id,
    }
    return {name: value for name, value in about.items() if value is not None}
