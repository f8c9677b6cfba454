"""The guards inside the package: they are named, any other guard is a folder."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "guards"


def names() -> tuple[str, ...]:
    """The shipped guards."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob("*/guard.json")))


def place(guard: Path) -> Path:
    """The folder of a guard: the path itself where something stands there, else the shipped guard of that name, else the path."""
    inside = SHIPPED / guard.name
    return inside if len(guard.parts) == 1 and not guard.exists() and (inside / "guard.json").is_file() else guard


def is_shipped(guard: Path) -> bool:
    """Whether a folder lies inside the package, where nothing may be written."""
    return guard.resolve().is_relative_to(SHIPPED.resolve())
