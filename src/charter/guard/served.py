"""A guard folder as it is served: where its scorer runs, and how it is loaded again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Literal

from charter.guard.holdback import GuardLike
from charter.guard.record import PointName

Where = Literal["here", "process", "upstream"]
"""Threads of this process, a process of its own, or the forward of the embedded upstream."""


def open_guard(folder: Path, point: PointName, lookahead: int, where: Where, stack: ExitStack) -> tuple[GuardLike, Callable[[], GuardLike]]:
    """The guard, and what gives it as its folder is later on; a process is ended with the stack.

    Raises:
        GuardError: it is missing, damaged or foreign.
        BackboneError: its backbone can't be loaded.
    """
    if where == "process":
        from charter.guard.remote import start

        process, remote = start(folder, point, lookahead)
        stack.callback(process.stop)
        return remote, remote.reloaded

    def load() -> GuardLike:
        if where == "upstream":
            from charter.guard.in_process import load_in_process

            return load_in_process(folder, point=point, lookahead=lookahead)
        from charter.guard import folder as folders
        from charter.guard.gathered import gathered

        return gathered(replace(folders.load(folder, point=point), lookahead=lookahead))

    return load(), load
