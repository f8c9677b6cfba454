"""A guard on the model that it guards: the probe reads the activations of the generation itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from charter.guard.face import Face
from charter.guard.folder import Guard, load
from charter.guard.record import PointName
from charter.guard.session import GuardSession
from charter.records import Turn

if TYPE_CHECKING:
    from charter.models.generation import Generation, Sampling


class InProcessSession(GuardSession):
    """A guarded conversation whose reply can be written here. What `write` gives is unscored: only `push` and `flush` say what may leave."""

    def __init__(self, guard: Guard, turns: tuple[Turn, ...]) -> None:
        from charter.models.upstream_probe import UpstreamSession

        self._upstream = UpstreamSession(guard.cascade, turns)
        super().__init__(self._upstream, guard.policies, guard.clauses, guard.lookahead)

    def write(self, sampling: Sampling) -> Iterator[str]:
        """The reply as the model writes it; nothing is computed ahead of what is taken."""
        return self._upstream.write(sampling)

    @property
    def generation(self) -> Generation:
        """What the model made of it so far."""
        return self._upstream.generation


@dataclass(frozen=True)
class InProcessGuard(Face):
    """Implements `guard.holdback.GuardLike`. Its guard was loaded with `generates`."""

    def open(self, turns: tuple[Turn, ...]) -> InProcessSession:
        """Judge a conversation in the model's own prefill, and get ready for its reply.

        Raises:
            BackboneError: the conversation doesn't fit the model's chat template or its context.
        """
        return InProcessSession(self.guard, turns)


def load_in_process(folder: Path, model: str = "embedded", point: PointName = "quiet", lookahead: int = 0) -> InProcessGuard:
    """A guard together with the model that it guards and reads.

    Args:
        model: "embedded", a folder or a hub id; its weights must be those of the guard's backbone.
        point: the operating point at which it judges.
        lookahead: tokens of a reply that are scored after one before it may leave.

    Raises:
        GuardError: the guard is missing, damaged or foreign, or has a value head.
        BackboneError: the model can't be loaded, can't chat, or is not the one that the guard was trained on.
    """
    from charter.models.threads import numpy_alone

    numpy_alone()
    return InProcessGuard(replace(load(folder, model, point, generates=True), lookahead=lookahead))
