"""A guard's folder, looked at now and then: whether another guard was put there."""

from __future__ import annotations

from pathlib import Path

EVERY_S = 1.0


class Watch:
    """A file that is renamed into place when all beside it is written: a folder's guard.json."""

    def __init__(self, *files: Path) -> None:
        self._files = files
        self._state = self._stat()

    def changed(self) -> bool:
        """Whether a file is another than when this was last asked. One that is not there (yet) has not changed."""
        state = self._stat()
        if state == self._state or None in state:
            return False
        self._state = state
        return True

    def _stat(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stat(file) for file in self._files)


def _stat(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
