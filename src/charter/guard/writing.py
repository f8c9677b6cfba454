"""Guard folders are written to the side and swapped in, so that a half-written one never stands under a guard's name."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from charter.errors import GuardError
from charter.guard.folder import FILES, OPTIONAL, sha256
from charter.guard.record import GuardRecord
from charter.guard.scorers import HEAD, MEMBERS, WHOLE
from charter.records import write_text

if TYPE_CHECKING:
    from charter.models.value_head import Tuned


def save(
    folder: Path,
    record: GuardRecord,
    constitution_text: str,
    tensors: Mapping[str, Mapping[str, Any]],
    card: str,
    head: Tuned | None = None,
) -> None:
    """Write a guard folder to the side and swap it in, so that a half-written guard never stands under its name.

    Args:
        tensors: file stem ("probe", "screen", and "calibration" and "ensemble" where there are such) to named numpy arrays.
    """
    with _aside(folder) as aside:
        if head:
            head.save(aside / HEAD)
        write_text(aside / "constitution.yaml", constitution_text)
        _fill(aside, record, tensors, card)


def amend(folder: Path, out: Path, record: GuardRecord, calibration: Mapping[str, Any], card: str) -> None:
    """Write a guard folder with the scorers of another one as they are, and a new record, card and evidence. Both may be the same.

    Args:
        calibration: named numpy arrays.
    """
    with _aside(out) as aside:
        more = [name for name in (HEAD, MEMBERS, WHOLE) if name in record.files]
        for name in ("constitution.yaml", "probe.safetensors", "screen.safetensors", *more):
            shutil.copyfile(folder / name, aside / name)
        _fill(aside, record, {"calibration": calibration}, card)


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place once the block has ended well."""
    folder = folder.resolve()  # through a link, what it points to is replaced
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield aside
        aside.chmod(0o755)
        _swap(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(aside: Path, record: GuardRecord, tensors: Mapping[str, Mapping[str, Any]], card: str) -> None:
    """What is still missing, guard.json with all hashes last."""
    from safetensors.numpy import save_file

    write_text(aside / "card.md", card)
    for stem, arrays in tensors.items():
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, aside / f"{stem}.safetensors")
    names = [*FILES, *(name for name in OPTIONAL if (aside / name).is_file())]
    hashed = record.model_copy(update={"files": {name: sha256(aside / name) for name in names}})
    write_text(aside / "guard.json", hashed.model_dump_json(indent=2) + "\n")


def _swap(aside: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one, which must be a guard itself."""
    if folder.exists():
        if not folder.is_dir() or (not (folder / "guard.json").is_file() and any(folder.iterdir())):
            raise GuardError(f"{folder}: exists and is not a guard; choose another --out or remove it")
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        os.replace(folder, old)
        os.replace(aside, folder)
        shutil.rmtree(old)
    else:
        os.replace(aside, folder)
