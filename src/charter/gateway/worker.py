"""One of several gateways that share a port: what it must know of the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's place. The folder is the supervisor's own and nobody else's: what workers tell one another stands there."""

    number: int
    of: int
    folder: Path
    secret: str = field(repr=False)
    """Known to the workers alone: what a sibling passes on has been let in already."""
    shared_scorer: bool = False
    """All ask one scorer's process, whose load is not to be added up."""
    tls: bool = False

    @property
    def tally(self) -> Path:
        """What this worker has counted so far."""
        return self.folder / f"{self.number}.json"

    @property
    def gone(self) -> Path:
        """What those have counted that died."""
        return self.folder / "gone.json"

    def socket(self, number: int) -> Path:
        """Where a worker listens to its siblings."""
        return self.folder / f"{number}.sock"
