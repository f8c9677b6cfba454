"""Streams that wait for the backbone are gathered: whatever waits when a forward ends goes into the next one together.

    gather(cascade)                     # from now on sessions of the cascade share their forwards
    session = cascade.open(turns)       # in any thread; `push` waits for its turn

Each stream still calls `feed` and gets its states; one thread does the forwards. Who has waited longest comes first, and a long
text takes its turn again for every share of it, so that it holds up a short step by one forward at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.cascade import Cascade
from charter.models.ragged import Keys, Memory, fits, prepare, ragged

BATCH_TOKENS = 256
"""Tokens of one forward: what keeps two cores busy, and a short step waiting for less than a second."""
SHARES = 8
"""A stream may have this part of a forward while many wait, and more where few do."""
STATE_BYTES = 4 * 2**30
"""Keys and values of all open streams of a backbone together."""
GATHER_S = 0.002
"""Longest that a forward waits for the streams of the one before, which are just now taking their scores."""
IDLE_S = 1.0
"""How long the thread stays without work."""


@dataclass(eq=False)
class _Feed:
    """A stream's tokens on their way."""

    keys: Keys
    ids: Sequence[int]
    read: int = 0
    states: list[Tensor] = field(default_factory=list)
    done: Future[Tensor] = field(default_factory=Future)


@dataclass(slots=True)
class Counts:
    """Totals of a batcher."""

    forwards: int = 0
    rows: int = 0
    """Streams in them."""
    tokens: int = 0


class Batcher:
    """The forwards of all streams of one backbone."""

    def __init__(self, backbone: Backbone, batch_tokens: int = BATCH_TOKENS, most_bytes: int = STATE_BYTES) -> None:
        """Take over the backbone's attention.

        Raises:
            BackboneError: its streams can't share a forward.
        """
        prepare(backbone)
        self.backbone, self.batch_tokens = backbone, batch_tokens
        self.counts, self.memory = Counts(), Memory(most_bytes)
        self._waiting: deque[_Feed] = deque()
        self._changed = threading.Condition()
        self._runs = False

    @property
    def waiting(self) -> int:
        """Streams whose tokens are in no forward yet."""
        return len(self._waiting)

    def stream(self) -> SharedStream:
        """A new, empty stream."""
        return SharedStream(self, Keys(self.memory))

    def feed(self, keys: Keys, ids: Sequence[int]) -> Tensor:
        """Append tokens to a stream; returns their states once it was their turn, float [tokens, layers, width].

        Raises:
            MemoryFull: the stream can't go on.
        """
        asked = _Feed(keys, ids)
        with self._changed:
            self._waiting.append(asked)
            self._changed.notify()
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._work, name="charter-forwards", daemon=True).start()
        return asked.done.result()

    def _work(self) -> None:
        last = 0
        while picked := self._pick(last):
            last = len(picked)
            self._forward(picked)

    def _pick(self, last: int) -> list[tuple[_Feed, int]]:
        """What the next forward takes, and how much of each; nothing where the thread is to end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, IDLE_S):
                self._runs = False
                return []
            self._changed.wait_for(lambda: len(self._waiting) >= last, GATHER_S)
            share = max(1, self.batch_tokens // min(len(self._waiting), SHARES))
            picked, room = [], self.batch_tokens
            while self._waiting and room:
                asked = self._waiting.popleft()
                n = min(share, room, len(asked.ids) - asked.read)
                picked.append((asked, n))
                room -= n
            return picked

    def _forward(self, picked: Sequence[tuple[_Feed, int]]) -> None:
        try:
            states = ragged(self.backbone, [(asked.keys, asked.ids[asked.read : asked.read + n]) for asked, n in picked])
        except Exception as error:
            if len(picked) > 1:  # the fault is one stream's; the others shall not have it
                for one in picked:
                    self._forward([one])
            else:
                picked[0][0].done.set_exception(error)
            return
        self.counts.forwards += 1
        self.counts.rows += len(picked)
        self.counts.tokens += len(states)
        for (asked, n), own in zip(picked, torch.split(states, [n for _, n in picked]), strict=True):
            self._took(asked, n, own)

    def _took(self, asked: _Feed, n: int, states: Tensor) -> None:
        asked.read += n
        asked.states.append(states)
        if asked.read == len(asked.ids):
            with torch.inference_mode():
                asked.done.set_result(torch.cat(asked.states))
        else:
            with self._changed:
                self._waiting.append(asked)


class SharedStream:
    """One growing token sequence whose forwards are shared with others. Has the face of `backbone.Stream`."""

    def __init__(self, batcher: Batcher, keys: Keys) -> None:
        self._batcher, self._keys = batcher, keys

    @property
    def length(self) -> int:
        return self._keys.length

    def feed(self, ids: Sequence[int]) -> Tensor:
        """Append tokens; returns their hidden states, float [tokens, layers, width]. Blocks until they are there.

        Raises:
            BackboneError: the context would overflow. Nothing is ever cut silently.
            MemoryFull: all streams together hold too much.
        """
        context = self._batcher.backbone.context
        if self.length + len(ids) > context:
            raise BackboneError(f"the conversation is longer than the backbone's context of {context:,} tokens")
        return self._batcher.feed(self._keys, ids)

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedStream:
        return SharedStream(self._batcher, self._keys.copy())


def gather(cascade: Cascade, batch_tokens: int = BATCH_TOKENS, most_bytes: int = STATE_BYTES) -> tuple[Batcher, ...]:
    """Let the sessions of a cascade that are opened from now on share their forwards, on every backbone that allows it."""
    batchers = tuple(Batcher(s.backbone, batch_tokens, most_bytes) for s in cascade.stages if fits(s.backbone))
    for batcher in batchers:
        batcher.backbone.streams = batcher.stream
    return batchers
