"""A text longer than the backbone's context, read in windows that overlap by half: no token is left out, and none is cut silently.

For training and evaluation, which count such texts. Serving refuses them, since what it has released can't be read again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from charter.models.backbone import Backbone

MOST = 32_768
"""Tokens of the longest text that is read so: the states of all its tokens stand in memory at once, about a gigabyte."""


class Overlapping:
    """A stream without an end: where the context is full, another begins, which reads the last half of it again.

    Where windows begin depends on the number of tokens alone, so the steps in which they come change nothing.
    """

    def __init__(self, backbone: Backbone) -> None:
        self._backbone, self._stream = backbone, backbone.stream()
        self._again: list[int] = []
        """The last tokens, for the next window."""

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Append tokens; returns their hidden states, float [tokens, layers, width]. Each has half a context before it, or all there is."""
        backbone, found = self._backbone, [torch.empty(0, len(self._backbone.layers), self._backbone.width)]
        at = 0
        while at < len(ids):
            if self._stream.length == backbone.context:
                self._stream = backbone.stream()
                self._stream.feed(self._again)
            part = list(ids[at : at + backbone.context - self._stream.length])
            found.append(self._stream.feed(part))
            self._again = [*self._again, *part][-(backbone.context // 2) :]
            at += len(part)
        return torch.cat(found)
