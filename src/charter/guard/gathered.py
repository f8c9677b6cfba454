"""A guard whose open conversations share the forwards of its backbone (`models.batcher`), and what that scorer has to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from charter.guard.face import Face

if TYPE_CHECKING:  # a gateway before another process's scorer loads no model
    from charter.guard.folder import Guard
    from charter.guard.session import GuardSession
    from charter.models.batcher import Batcher
    from charter.records import Turn


@dataclass(frozen=True, slots=True)
class Load:
    """What a scorer has done and holds, over all its backbones."""

    forwards: int = 0
    rows: int = 0
    """Streams in those forwards, added up."""
    tokens: int = 0
    waiting: int = 0
    """Streams that wait for a forward."""
    state_bytes: int = 0
    restarts: int = 0
    """Times that its process ended and was started again."""


@dataclass(frozen=True)
class GatheredGuard(Face):
    """Implements `guard.holdback.GuardLike`. Its sessions may be used in as many threads as there are sessions."""

    batchers: tuple[Batcher, ...]

    def open(self, turns: tuple[Turn, ...]) -> GuardSession:
        """Judge a conversation and get ready for its reply.

        Raises:
            BackboneError: the conversation is longer than the context.
            Unavailable: the conversations that are open hold all the memory there is for them.
        """
        return self.guard.open(turns)

    def load(self) -> Load:
        """What the scorer has done so far and holds now."""
        counts = [batcher.counts for batcher in self.batchers]
        return Load(
            sum(c.forwards for c in counts), sum(c.rows for c in counts), sum(c.tokens for c in counts),
            sum(b.waiting for b in self.batchers), sum(b.memory.held for b in self.batchers),
        )  # fmt: skip


def gathered(guard: Guard) -> GatheredGuard:
    """The guard with its backbones' forwards shared; a backbone whose attention does not allow that is asked one stream at a time."""
    from charter.models.batcher import gather
    from charter.models.threads import numpy_alone

    numpy_alone()
    return GatheredGuard(guard, gather(guard.cascade))
