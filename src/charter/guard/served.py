"""A guard folder as it is served: where its scorer runs, and how it is loaded again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from charter.guard.holdback import GuardLike
from charter.guard.precision import Precision, at_precision
from charter.guard.record import PointName

Where = Literal["here", "process", "upstream"]
"""Threads of this process, a process of its own, or the forward of the embedded upstream."""


Opened = tuple[GuardLike, Callable[[], GuardLike]]
"""A guard, and what gives it as its folder is later on."""


def opener(
    folder: Path, point: PointName, lookahead: int, where: Where, stack: ExitStack, precision: Precision = "float32"
) -> Callable[[], Opened]:
    """What opens the guard, in this process or in those that are forked from it: a scorer's process, started here and ended with the
    stack, is asked by all of them.

    Raises:
        GuardError: the scorer's process can't load it. Elsewhere that is told when it is opened:
        GuardError, BackboneError: it is missing, damaged or foreign, or its backbone can't be loaded.
    """
    if where == "process":
        from charter.guard.remote import Link, RemoteGuard
        from charter.guard.supervisor import start

        process = start(folder, point, lookahead, precision)
        stack.callback(process.stop)

        def link() -> Opened:
            remote = RemoteGuard(Link(process.path))
            return remote, remote.reloaded

        return link

    def load() -> GuardLike:
        if where == "upstream":
            from charter.guard.in_process import load_in_process

            own = load_in_process(folder, point=point, lookahead=lookahead)
            at_precision(own.guard, precision)
            return own
        from charter.guard import folder as folders
        from charter.guard.gathered import gathered

        return gathered(replace(at_precision(folders.load(folder, point=point), precision), lookahead=lookahead))

    return lambda: (load(), load)
