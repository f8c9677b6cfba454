"""Who hears of a finding: the audit log, the metrics, and the spans and the playground where they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from charter.gateway.audit.finding import Finding
from charter.gateway.audit.log import AuditLog
from charter.gateway.counters import Counters
from charter.gateway.settings import Settings
from charter.guard.holdback import GuardLike

if TYPE_CHECKING:
    from charter.gateway.feed import Feed
    from charter.gateway.metrics import Metrics
    from charter.gateway.spans import Spans

LAST_S = 1.0


class Observer:
    """Passes each finding on. None of those who hear of it can fail or wait."""

    def __init__(
        self, guard: GuardLike, settings: Settings, counters: Counters, audit: AuditLog | None = None,
        metrics: Metrics | None = None, spans: Spans | None = None, feed: Feed | None = None,
    ) -> None:  # fmt: skip
        self.guard, self.settings, self.counters = guard, settings, counters
        self.audit, self.metrics, self.spans, self.feed = audit, metrics, spans, feed

    async def close(self) -> None:
        """The gateway stops: whatever was found gets to disk. Streams that were cut just now have yet to say what they found."""
        with anyio.move_on_after(LAST_S):
            while self.metrics is not None and self.metrics.open:
                await anyio.sleep(0.01)
        if self.audit is not None:
            await anyio.to_thread.run_sync(self.audit.close)
        if self.spans is not None:
            await anyio.to_thread.run_sync(self.spans.close)

    def found(self, finding: Finding) -> None:
        """A verdict and its action are known."""
        if self.audit is not None:
            self.audit.put(finding)
        if self.metrics is not None:
            self.metrics.found(finding)
        if self.spans is not None:
            self.spans.found(finding)
        if self.feed is not None:
            self.feed.found(finding)
