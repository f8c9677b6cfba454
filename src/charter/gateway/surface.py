"""What a surface is: where text stands in its requests, replies and events, and how a block is written there.

A surface is a description and nothing more. `generate` judges the prompt and whole replies by it, `streaming` the streams.
A reply has parts: the choices of a chat, or the reply itself where there is only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from charter.gateway.channels import Path
from charter.gateway.errors import HTTPProblem
from charter.records import Turn

JSON = dict[str, Any]


class Unreadable(Exception):
    """A reply or an event of the upstream's that is none, and so can't be scored. Says what it should have been."""


@dataclass(frozen=True)
class Block:
    """What is told to the client where the guard ends a reply."""

    note: JSON
    """Verdict, action and stage; the field `charter`."""
    text: str | None = None
    """The operator's own words, said in place of what was withheld."""


class Stream(Protocol):
    """One streamed reply in a surface's events. It may remember what went by."""

    def parts(self, event: JSON) -> list[tuple[int, JSON]]:
        """The parts of an event with the numbers of the choices they belong to.

        Raises:
            Unreadable: as it says.
        """
        ...

    def joined(self, event: JSON, parts: list[JSON]) -> JSON | None:
        """The event with these parts in place of its own; None where nothing is left to say."""
        ...

    def deltas(self, part: JSON) -> Iterator[tuple[Path, str]]:
        """Texts that go on from event to event, each with its channel. They are released as far as they are scored."""
        ...

    def wholes(self, part: JSON) -> Iterator[str]:
        """Texts that stand here in full. The part passes if all of them do."""
        ...

    def replaced(self, part: JSON, by: Mapping[Path, str], changed: bool) -> JSON | None:
        """The part with other deltas; None where nothing is left of it. Where they changed, logprobs go: they spell out the rest."""
        ...

    def ends(self, part: JSON, open_paths: Iterable[Path]) -> list[Path]:
        """Channels of which no more will come."""
        ...

    def finished(self, part: JSON) -> bool:
        """Whether the choice ends with this part."""
        ...

    def unfinished(self, part: JSON) -> JSON | None:
        """The part, which holds the last that may leave, without any word that the choice ended well; None where that is all."""
        ...

    def rest(self, index: int, path: Path, text: str) -> JSON:
        """An event that carries one text and nothing else."""
        ...

    def closing(self, index: int, block: Block) -> list[JSON]:
        """The events that end a choice which the guard stopped."""
        ...

    def sent(self, event: JSON) -> JSON:
        """An event as it leaves: the last to see it."""
        ...

    def frame(self, event: JSON, data: str | None = None) -> bytes:
        """An event on the wire; `data` where it is known as text."""
        ...

    def problem(self, problem: HTTPProblem) -> bytes:
        """A fault, told in the stream."""
        ...

    @property
    def last(self) -> bytes:
        """What follows the last event."""
        ...


class Surface(Protocol):
    """One API."""

    path: str
    """Below /v1, here and at the upstream."""
    key_header: str
    """Where the upstream's key is sent."""

    def turns(self, body: JSON) -> tuple[Turn, ...]:
        """The conversation of a request.

        Raises:
            HTTPProblem: 400.
        """
        ...

    def n_choices(self, body: JSON) -> int:
        """How many choices are asked for.

        Raises:
            HTTPProblem: 400.
        """
        ...

    def parts(self, reply: JSON) -> list[JSON]:
        """The parts of a whole reply.

        Raises:
            Unreadable: as it says.
        """
        ...

    def joined(self, reply: JSON, parts: list[JSON]) -> JSON:
        """The reply with these parts in place of its own."""
        ...

    def texts(self, part: JSON) -> Iterator[tuple[Path, str]]:
        """The texts of a part."""
        ...

    def replaced(self, part: JSON, by: Mapping[Path, str]) -> JSON:
        """A copy of a part with its texts replaced; those not named become ""."""
        ...

    def cut(self, part: JSON, text: str | None) -> JSON:
        """A part that the guard cut short, ended as such, with the operator's words where there are some."""
        ...

    def blocked(self, body: JSON, block: Block, n_choices: int) -> JSON:
        """The whole answer to a restricted prompt: a normal one without a word of the model's."""
        ...

    def blocked_stream(self, body: JSON, block: Block, n_choices: int) -> list[JSON]:
        """The same as events."""
        ...

    def stream(self) -> Stream:
        """For a new streamed reply."""
        ...
