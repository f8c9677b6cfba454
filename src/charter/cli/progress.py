"""Progress of long work on stderr: a bar a stage on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Step = Callable[[str, int, int], None]
"""Called with a stage's name, how much is done and how much there is (0: unknown)."""


@contextmanager
def stages(quiet: bool = False) -> Iterator[Step]:
    """A function to report steps to while the block runs."""
    if quiet:
        yield lambda _name, _done, _total: None
    elif sys.stderr.isatty():
        yield from _bars()
    else:
        yield _Lines()


def _bars() -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def step(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total or None)
            bars.update(tasks[name], completed=done, total=total or None)

        yield step


class _Lines:
    """Says when a stage begins, and how far it is every half minute."""

    def __init__(self) -> None:
        self._stage = ""
        self._said = 0.0

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if name != self._stage or now - self._said > 30:
            print(f"{name}: {done:,}" + (f" of {total:,}" if total else ""), file=sys.stderr, flush=True)  # noqa: T201
            self._stage, self._said = name, now
