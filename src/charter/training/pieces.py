"""An exchange that is longer than a forward of training, in pieces that overlap by half: none of its tokens is left out or counted twice."""

from __future__ import annotations

from collections.abc import Sequence

CONTEXT = 1_024
"""Tokens in one forward of training."""
NOWHERE = -1
"""The mark of a token that nothing is learned from."""


def pieces(ids: Sequence[int], marks: Sequence[int], context: int = CONTEXT) -> list[tuple[list[int], list[int]]]:
    """An exchange in pieces of `context` tokens, each token marked in the first one that holds it; those without a mark are left out.

    A token so has at least half a context before it, or all there is, as when an over-long exchange is scored (`models.overlap`).

    Args:
        marks: for each token what it belongs to, or NOWHERE.
        context: at least 2.
    """
    step, found = context // 2, []
    again = context - step
    for start in range(0, max(1, len(ids) - again), step):
        seen = again if start else 0
        own = [*[NOWHERE] * seen, *marks[start + seen : start + context]]
        if max(own, default=NOWHERE) > NOWHERE:
            found.append((list(ids[start : start + context]), own))
    return found
