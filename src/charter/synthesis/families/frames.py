"""Frames: sentences around a text, one of several drawn, and the way back to the text inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

HOLE = "{}"


@dataclass(frozen=True)
class Frames:
    """Some texts with one hole each; the bare hole stands for no frame."""

    texts: tuple[str, ...]
    edges: list[tuple[str, str]] = field(init=False)
    """What stands before and after the hole, the longest frame first: the bare one fits everything."""

    def __post_init__(self) -> None:
        halves = [text.split(HOLE) for text in self.texts]
        object.__setattr__(self, "edges", sorted(((a, b) for a, b in halves), key=lambda edge: -len("".join(edge))))

    def put(self, text: str, rng: Random) -> str:
        """The text in one of the frames."""
        before, after = rng.choice(self.texts).split(HOLE)
        return before + text + after

    def contents(self, text: str) -> Iterator[str]:
        """What may stand inside, the likeliest first."""
        for before, after in self.edges:
            if text.startswith(before) and text.endswith(after) and len(text) >= len(before) + len(after):
                yield text[len(before) : len(text) - len(after)]

    def take(self, text: str) -> str:
        """What stands inside; the text itself where no frame fits."""
        return next(self.contents(text), text)


def either(*texts: str) -> Frames:
    """Frames of these texts."""
    return Frames(texts)
