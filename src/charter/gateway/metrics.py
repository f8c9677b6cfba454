"""What Prometheus scrapes at /metrics.

Three families of names: `litellm_guardrail_*` and `guardrails_*` are those that LiteLLM and NeMo use, labels included, so that
their dashboards and alerts go on working; `charter_*` is what they lack, the guarantee above all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, Info
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric, StateSetMetricFamily
from prometheus_client.registry import Collector

from charter.gateway.audit.finding import Finding
from charter.gateway.audit.log import AuditLog
from charter.gateway.counters import Counters
from charter.gateway.settings import Settings
from charter.guard.gathered import Load
from charter.guard.holdback import GuardLike

if TYPE_CHECKING:
    from charter.gateway.refusing import Dial
    from charter.gateway.second import Comparison, Second
    from charter.gateway.trail import Asked

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SCORES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
POSITIONS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000)
HOOKS = {"prompt": "pre_call", "reply": "post_call"}
"""LiteLLM's words for the two stages."""
STATES = ("ok", "spooling", "unspooled", "losing")


class Metrics:
    """A registry of one gateway, and what is entered in it as it happens. Totals kept elsewhere are read when scraped."""

    def __init__(
        self, guard: GuardLike, settings: Settings, counters: Counters, audit: AuditLog | None = None, dial: Dial | None = None
    ) -> None:
        self.registry = CollectorRegistry()
        self.open: set[Asked] = set()
        """Requests being answered."""
        self._about = Info("charter_guard", "The guard that serves", registry=self.registry)
        self._settings = settings
        self._peers()
        self._own()
        self._totals = _Totals(self.open, counters, audit, guard, dial)
        self.registry.register(self._totals)
        self.serves(guard)

    def compares(self, second: Second) -> None:
        """A second guard judges too."""
        self._totals.second = second

    def serves(self, guard: GuardLike) -> None:
        """The guard that serves from now on."""
        self._guard, self._totals.guard = guard.name, guard
        self._about.info({"name": guard.name, "hash": guard.hash, "mode": self._settings.mode, "on_error": self._settings.on_error})

    def found(self, finding: Finding) -> None:
        """A verdict and its action."""
        hook, problem = HOOKS[finding.stage], finding.error is not None
        status = "error" if problem else "blocked" if finding.action == "block" else "success"
        kind = "not_scored" if problem else "blocked" if status == "blocked" else ""
        self._runs.labels(self._guard, status, hook).inc()
        self._latency.labels(self._guard, status, kind, hook).observe(finding.latency_ms / 1e3)
        if problem:
            self._failures.labels(self._guard, kind, hook).inc()
        self._verdicts.labels(finding.stage, finding.outcome, finding.action, finding.clause or "").inc()
        if not problem:
            self._scores.labels(finding.stage).observe(finding.score)
        if finding.position is not None:
            self._halts.labels(finding.stage).observe(finding.position)

    def ended(self, asked: Asked) -> None:
        """A request was answered, whatever came of it."""
        self._requests.inc()
        blocked = any(f.action == "block" and not f.error for f in asked.findings)
        self._blocked.inc(blocked)
        self._errors.inc(any(f.error for f in asked.findings))
        self._rejections.inc(blocked and asked.streams)

    def _peers(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        on = ("guardrail_name", "status", "hook_type")
        self._runs = counter("litellm_guardrail_requests", "Runs of the guard", *on)
        self._failures = counter("litellm_guardrail_errors", "Runs that gave no verdict", "guardrail_name", "error_type", "hook_type")
        labels = ("guardrail_name", "status", "error_type", "hook_type")
        self._latency = Histogram("litellm_guardrail_latency_seconds", "Time of a run", labels, buckets=LATENCY_S, registry=self.registry)
        self._requests = counter("guardrails_requests", "Requests answered by a guarded surface")
        self._blocked = counter("guardrails_requests_blocked", "Requests of which something was blocked by a verdict")
        self._errors = counter("guardrails_requests_errors", "Requests of which something could not be scored")
        self._rejections = counter("guardrails_stream_rejections", "Streams cut by a verdict")

    def _own(self) -> None:
        labels = ("stage", "verdict", "action", "clause")
        self._verdicts = Counter("charter_verdicts", "Verdicts with what was done about them", labels, registry=self.registry)
        self._scores = Histogram("charter_verdict_score", "Highest probability of harm", ["stage"], buckets=SCORES, registry=self.registry)
        self._halts = Histogram("charter_halt_position", "Token that was flagged", ["stage"], buckets=POSITIONS, registry=self.registry)


class _Totals(Collector):
    """Figures that are kept elsewhere: open requests, the ledger's counts, the audit log."""

    def __init__(self, open_: set[Asked], counters: Counters, audit: AuditLog | None, guard: GuardLike, dial: Dial | None) -> None:
        self._open, self._counters, self._audit, self.guard, self._dial = open_, counters, audit, guard, dial
        self.second: Second | None = None

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("guardrails_requests_active", "Requests being answered", value=len(self._open))
        streams = sum(asked.streams for asked in self._open)
        yield GaugeMetricFamily("guardrails_stream_active", "Streams being answered", value=streams)
        held = sum(asked.held_chars for asked in self._open)
        yield GaugeMetricFamily("charter_held_chars", "Characters that wait for their score", value=held)
        for name, text in (
            ("released_unscored_chars", "Characters sent without a score; 0 unless failures are open or the mode is shadow"),
            ("released_after_verdict_chars", "Characters sent after a verdict; 0 unless the mode is shadow"),
            ("errors", "Scoring steps that failed or took too long"),
        ):
            yield CounterMetricFamily(f"charter_{name}", text, value=getattr(self._counters, name))
        if self.second is not None:
            yield from _compared(self.second.counts)
        load: Callable[[], Load] | None = getattr(self.guard, "load", None)
        if load is not None:
            yield from _loaded(load())
        if self._dial is not None:
            begun = CounterMetricFamily(
                "charter_refusal_tokens", "Replies of the upstream by the token that they begin with", labels=["token"]
            )
            for mark, n in self._dial.counts.items():
                begun.add_metric([mark], n)
            yield begun
        if self._audit is not None:
            yield from _audited(self._audit)


def _compared(counts: Comparison) -> Iterator[Metric]:
    found = CounterMetricFamily("charter_shadow_verdicts", "Verdicts of both guards on the same text", labels=["stage", "verdicts"])
    for stage, agreement in (("prompt", counts.prompt), ("reply", counts.reply)):
        for name, n in asdict(agreement).items():
            found.add_metric([stage, name], n)
    yield found
    yield CounterMetricFamily("charter_shadow_failed", "Texts that the second guard could not judge", value=counts.failed)
    yield CounterMetricFamily("charter_shadow_dropped", "Texts that the second guard was too busy for", value=counts.dropped)


def _loaded(load: Load) -> Iterator[Metric]:
    yield GaugeMetricFamily("charter_scorer_waiting", "Streams that wait for a forward of the backbone", value=load.waiting)
    yield GaugeMetricFamily("charter_scorer_state_bytes", "What open streams hold of the backbone's cache", value=load.state_bytes)
    yield CounterMetricFamily("charter_scorer_forwards", "Forwards of the backbone", value=load.forwards)
    yield CounterMetricFamily("charter_scorer_rows", "Streams in them, added up: by forwards, how many shared one", value=load.rows)
    yield CounterMetricFamily("charter_scorer_tokens", "Tokens in them", value=load.tokens)
    yield CounterMetricFamily("charter_scorer_restarts", "Times that the scorer's process ended and was started again", value=load.restarts)


def _audited(audit: AuditLog) -> Iterator[Metric]:
    state = {name: name == audit.state for name in STATES}
    yield StateSetMetricFamily("charter_audit_state", "spooling: database down; unspooled: disk full; losing: both", state)
    yield GaugeMetricFamily("charter_audit_queued", "Verdicts in memory alone", value=audit.queued)
    yield GaugeMetricFamily("charter_audit_pending_bytes", "Spooled and not yet in the database", value=audit.pending_bytes)
    yield GaugeMetricFamily("charter_audit_damaged_files", "Files of the spool with lines that could not be read", value=audit.damaged)
    for name, text in (
        ("found", "Verdicts handed to the log"), ("spooled", "Verdicts written to the spool"), ("written", "Verdicts the database took"),
        ("replayed", "Of these, those kept on disk over an outage"), ("lost", "Verdicts that neither disk nor database took"),
        ("expired", "Verdicts deleted by the retention limit"),
    ):  # fmt: skip
        yield CounterMetricFamily(f"charter_audit_{name}", text, value=getattr(audit.counts, name))
