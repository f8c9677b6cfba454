"""What several workers count, added up, so that whichever answers at /metrics or /healthz tells of all.

Each worker writes its own figures into the supervisor's folder, twice a second; what a killed one had counted is kept. So figures of
siblings are up to half a second old, and a kill -9 costs as much of the killed one's counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

import anyio
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from charter.gateway.counters import Counters
from charter.gateway.metrics import Metrics
from charter.gateway.worker import Worker
from charter.records import write_text

EVERY_S = 0.5
ADDED = ("counter", "histogram", "summary")
"""Kinds of metrics that only grow: what a dead worker counted stays true."""
Families = dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]]
"""Name to documentation, kind, and value by sample and labels."""


class Tallies:
    """One worker's view of all. Also a registry, as far as `generate_latest` asks one."""

    def __init__(self, worker: Worker, counters: Counters, metrics: Metrics) -> None:
        self._worker, self._counters, self._metrics = worker, counters, metrics

    async def keep(self) -> None:
        """Write one's own figures down, for ever."""
        while True:
            with suppress(OSError):  # the folder goes with the supervisor; a full disk makes siblings' figures older
                self.write()
            await anyio.sleep(EVERY_S)

    def write(self) -> None:
        """Raises: OSError."""
        write_text(self._worker.tally, _written(asdict(self._counters), _families(self._metrics.registry.collect())))

    def counters(self) -> Counters:
        """The ledger's counts of all workers."""
        told = [asdict(self._counters), *(found["counters"] for found in self._others())]
        return Counters(**{f.name: sum(int(one.get(f.name, 0)) for one in told) for f in fields(Counters)})

    def collect(self) -> Iterator[Metric]:
        """The metrics of all workers."""
        siblings = [_read(found["families"]) for found in self._others(gone=False)]
        gone = _tally(self._worker.gone)
        dead = [_read(gone["families"])] if gone else []
        own = _families(self._metrics.registry.collect())
        for name, (text, kind, values) in _sum([own, *siblings], dead, self._worker.shared_scorer).items():
            metric = Metric(name, text, kind)
            for (sample, labels), value in values.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
        yield GaugeMetricFamily("charter_workers", "Workers that have told what they counted", value=1 + len(siblings))
        restarts = gone.get("restarts", 0) if gone else 0
        yield CounterMetricFamily("charter_worker_restarts", "Workers that ended and were started again", value=restarts)

    def _others(self, gone: bool = True) -> list[dict[str, Any]]:
        worker = self._worker
        paths = [worker.folder / f"{n}.json" for n in range(worker.of) if n != worker.number] + ([worker.gone] if gone else [])
        return [found for path in paths if (found := _tally(path))]


def fold(worker: Worker) -> None:
    """Keep what a worker had counted when it died; the supervisor calls this before it starts another in its place.

    Raises:
        OSError: the folder can't be written.
    """
    gone = _tally(worker.gone) or {"counters": {}, "families": [], "restarts": 0}
    last = _tally(worker.tally) or {"counters": {}, "families": []}
    counters = {f.name: gone["counters"].get(f.name, 0) + last["counters"].get(f.name, 0) for f in fields(Counters)}
    families = _sum([], [_read(gone["families"]), _read(last["families"])], worker.shared_scorer)
    write_text(worker.gone, _written(counters, families, restarts=gone["restarts"] + 1))
    worker.tally.unlink(missing_ok=True)


def _sum(living: list[Families], dead: list[Families], shared_scorer: bool) -> Families:
    """One family of each name. Gauges count the living alone; states and the load of a scorer that all share are the highest told."""
    out: Families = {}
    for found, lives in [*((one, True) for one in living), *((one, False) for one in dead)]:
        for name, (text, kind, values) in found.items():
            same = kind in ("info", "stateset") or (shared_scorer and name.startswith("charter_scorer_"))
            if not lives and (kind not in ADDED or same):
                continue
            into = out.setdefault(name, (text, kind, {}))[2]
            for key, value in values.items():
                before = into.get(key)
                if before is None:
                    into[key] = value
                else:
                    into[key] = max(before, value) if same else min(before, value) if key[0].endswith("_created") else before + value
    return out


def _families(metrics: Iterable[Metric]) -> Families:
    return {
        m.name: (m.documentation, m.type, {(s.name, tuple(sorted(s.labels.items()))): float(s.value) for s in m.samples}) for m in metrics
    }


def _written(counters: dict[str, int], families: Families, **more: int) -> str:
    told = [[n, text, kind, [[s, dict(labels), v] for (s, labels), v in values.items()]] for n, (text, kind, values) in families.items()]
    return json.dumps({"counters": counters, "families": told, **more}, separators=(",", ":"))


def _read(families: list[Any]) -> Families:
    return {
        name: (text, kind, {(sample, tuple(sorted(labels.items()))): value for sample, labels, value in samples})
        for name, text, kind, samples in families
    }


def _tally(path: Any) -> dict[str, Any]:
    """A file of figures; empty where it is not there (yet)."""
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found
