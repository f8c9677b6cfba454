"""rounds.json: what each round tried, kept and came to, and from which files; a killed run reads there where to go on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from charter.errors import DataError
from charter.records import write_text
from charter.redteam.heldout import Report

SCHEMA = 1
ASIDE = ".aside"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FamilyCount(_Strict):
    """Of the prompts that the guard flags undisguised; a stack counts for both of its families."""

    tried: int = Field(ge=0)
    through: int = Field(ge=0)
    lost: int = Field(ge=0)
    """Tried and not scored, because the meaning did not survive."""


class Attack(_Strict):
    """One round's attacks."""

    against: str
    """Hash of the guard that was attacked."""
    settings: str
    """Digest of everything else that the attacks depend on."""
    file: str
    """SHA-256 of the round's rows."""
    parents: int
    missed_plain: int
    """Parents that the guard missed undisguised."""
    tried: int
    """Disguises scored."""
    got_through: int
    """Of them not flagged, meaning intact."""
    kept: int
    """Parents with a disguise that got through and that found a harmless mate."""
    added: int
    """Rows written: two for each that was kept."""
    seconds: float
    families: dict[str, FamilyCount]


class Measured(_Strict):
    """The guard after a round."""

    rows: str
    """Digest of the files and the options that it was trained on."""
    hash: str
    threshold: float
    seconds: float
    """Training, and scoring the held-out set."""
    heldout: Report
    scores: list[float]
    """Of the held-out set's rows, in order: for the paired interval of later rounds."""


class Round(_Strict):
    """A round: the attacks on the guard before, and the guard trained on them."""

    round: int = Field(ge=0)
    attack: Attack | None = None
    """None in round 0."""
    guard: Measured | None = None
    """None where the run was killed in training."""


class Ledger(_Strict):
    """All rounds."""

    schema_version: int = SCHEMA
    seed: int = 0
    held_out: list[str] = Field(default_factory=list)
    heldout_set: str = ""
    """Digest of the set that all rounds are measured on."""
    rounds: list[Round] = Field(default_factory=list)
    aside: list[Round] = Field(default_factory=list)
    """Rounds of an earlier run beyond those asked for now; taken up again when they are."""


def path_of(data: Path) -> Path:
    return data / "rounds.json"


def rows_of(data: Path, number: int) -> Path:
    """The training examples of a round."""
    return data / f"redteam-{number}.parquet"


def read(data: Path) -> Ledger:
    """The ledger of a data folder; an empty one where there is none.

    Raises:
        DataError: it is damaged or of another version.
    """
    path = path_of(data)
    if not path.is_file():
        return Ledger()
    try:
        ledger = Ledger.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise DataError(f"{path}: can't be read ({reason}); remove it to begin the rounds anew") from error
    numbers = [entry.round for entry in (*ledger.rounds, *ledger.aside)]
    if ledger.schema_version != SCHEMA or numbers != list(range(len(numbers))):
        raise DataError(f"{path}: is of another version or lacks a round; remove it to begin the rounds anew")
    return ledger


def write(data: Path, ledger: Ledger) -> None:
    write_text(path_of(data), ledger.model_dump_json(indent=1) + "\n")


def set_aside(data: Path, rounds: int) -> Ledger:
    """Keep to the first `rounds` rounds: the rows of later ones are renamed, those of earlier ones that were set aside come back.

    So training on the folder sees the rounds that were asked for, and a later run that asks for more takes them up again.

    Raises:
        DataError: the ledger is damaged.
    """
    ledger = read(data)
    entries = [*ledger.rounds, *ledger.aside]
    if entries:
        ledger = ledger.model_copy(update={"rounds": entries[: rounds + 1], "aside": entries[rounds + 1 :]})
        write(data, ledger)
    for file in sorted(data.glob("redteam-*.parquet")):
        if not any(file == rows_of(data, number) for number in range(1, rounds + 1)):
            os.replace(file, _aside(file))
    for number in range(1, rounds + 1):
        file = rows_of(data, number)
        if not file.exists() and _aside(file).is_file():
            os.replace(_aside(file), file)
    return ledger


def fingerprint(files: Sequence[Path], more: str = "") -> str:
    """SHA-256 over the files' bytes and what else counts: 16 hex digits."""
    digest = hashlib.sha256(more.encode())
    for file in files:
        digest.update(sha256(file).encode())
    return digest.hexdigest()[:16]


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _aside(file: Path) -> Path:
    return file.with_name(file.name + ASIDE)
