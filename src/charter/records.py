"""The nouns of Charter: turns, exchanges, examples, verdicts, and the one parquet schema they are kept in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from charter.errors import DataError

Side = Literal["restricted", "permitted"]
Split = Literal["train", "dev", "test"]
View = Literal["prompt", "exchange", "reply"]
"""What a classifier reads and judges: the conversation before a reply; the reply in its light; the reply by itself."""
REPLY_VIEWS: tuple[View, ...] = ("exchange", "reply")
"""Those that judge a reply."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A conversation that ends in a prompt, or in a reply by the assistant."""

    id: str
    turns: tuple[Turn, ...]

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """The turns before the reply: all of them where there is none."""
        return self.turns[:-1] if self.reply is not None else self.turns

    @property
    def reply(self) -> str | None:
        """The closing turn of the assistant, or None."""
        return self.turns[-1].content if self.turns and self.turns[-1].role == "assistant" else None

    def seen(self, view: View) -> tuple[Turn, ...]:
        """The turns that a view reads. It judges all of them, but of an exchange the last alone."""
        if view == "exchange":
            return self.turns
        return self.prompt if view == "prompt" else self.turns[len(self.prompt) :]


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled exchange with its provenance: one row of examples.parquet."""

    id: str
    turns: tuple[Turn, ...]
    prompt_restricted: bool
    reply_restricted: bool | None
    """None where the conversation ends in the prompt."""
    clause: str
    """Id of the clause it was written for; empty for the benign pools."""
    side: Side
    slice: str
    """Where harmless traffic comes from: permitted:<clause>, chat, code ...; restricted:<clause> on the other side."""
    family: str
    """How the text was disguised; "plain" where it was not."""
    parent: str
    """Id of the written item that this one was made from; never cut by a split."""
    teacher: str
    seed: int
    split: Split
    clause_hash: str

    @property
    def exchange(self) -> Exchange:
        return Exchange(self.id, self.turns)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. What was done about it is an action, and kept apart."""

    flagged: bool
    score: float
    """Calibrated probability that the text is restricted: the highest so far."""
    clause: str | None
    """The restricted clause that fits best; None where nothing was flagged."""
    position: int | None
    """Number of the token, from 0, that first crossed the threshold; None where none did."""


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples to a parquet file, to the side and then renamed; returns how many.

    Rows are written in groups, so memory does not grow with their number.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    kinds = {"turns": pa.list_(turn), "prompt_restricted": pa.bool_(), "reply_restricted": pa.bool_(), "seed": pa.int64()}
    schema = pa.schema([(f.name, kinds.get(f.name, pa.string())) for f in fields(Example)])
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    written = 0
    try:
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            for group in _groups(examples, 2_000):
                writer.write_table(pa.Table.from_pylist([asdict(e) for e in group], schema=schema))
                written += len(group)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return written


def read_examples(path: Path) -> Iterator[Example]:
    """The rows of an examples.parquet, in order, a group at a time.

    Raises:
        DataError: the file is missing, damaged, no parquet file, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        path = path / "examples.parquet"
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of examples; make one with `charter synthesize`")
    names = [f.name for f in fields(Example)]
    try:
        with pq.ParquetFile(path) as file:
            missing = set(names) - set(file.schema_arrow.names)
            if missing:
                raise DataError(f"{path}: the column {sorted(missing)[0]!r} is missing; write the file with `charter synthesize`")
            for batch in file.iter_batches(2_000, columns=names):
                for row in batch.to_pylist():
                    yield Example(**{**row, "turns": tuple(Turn(**t) for t in row["turns"])})
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:  # damage shows up in many ways, the last two in the rows
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: this is not a parquet file of examples ({reason}); write it with `charter synthesize`") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    r"""The objects of a JSONL file (plain or .gz) with their line numbers. Lines end at \n only: text may hold U+2028.

    Raises:
        DataError: the file can't be read, or a line is no JSON object.
    """
    import gzip
    import zlib

    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="\n")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="\n") as lines
        ):
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, parse_object(line, f"{path}:{number}")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error}); is it a whole JSONL file in UTF-8?") from error


def parse_object(line: str, where: str) -> dict[str, Any]:
    """One JSON object.

    Raises:
        DataError: naming `where`.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: JSON with a number too long or nesting too deep ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON object is expected, not {type(value).__name__}")
    return value


def parse_turns(messages: object, where: str) -> tuple[Turn, ...]:
    """Turns from a list of {role, content} objects.

    Raises:
        DataError: naming `where` and the message that is off.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise DataError(f"{where}: `messages` must be a list of at least one {{role, content}} object")
    turns = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise DataError(f"{where}: message {number} needs a `role` and a `content`, both strings")
        turns.append(Turn(message["role"], message["content"]))
    return tuple(turns)


def split_place(key: str) -> float:
    """A place in [0, 1) that depends on the key alone: the one way in which anything is split."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64


def write_text(path: Path, text: str) -> None:
    """Write a file to the side and rename it, so that it is never there by half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def together(folder: Path, last: str) -> Iterator[Path]:
    """A place to write files aside; at the end of the block all of them replace those of `folder`, the one named `last` at last.

    Where the block fails, nothing of `folder` is touched. Only a kill between two renames leaves a mix, which `last` can tell.
    """
    aside = folder / ".part"
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    made = not folder.exists()
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in sorted(aside.iterdir(), key=lambda path: (path.name == last, path.name)):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def sha256(path: Path) -> str:
    """The hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_whole(folder: Path) -> None:
    """That the examples of a folder are those that its manifest.json tells of; folders without one pass.

    Raises:
        DataError: they are not, as after a run that was killed while it put its files in place.
    """
    path = folder / "manifest.json"
    if not path.is_file() or not (folder / "examples.parquet").is_file():
        return
    told = parse_object(path.read_text(encoding="utf-8", errors="replace"), str(path)).get("examples")
    if told is not None and told != sha256(folder / "examples.parquet"):
        raise DataError(f"{folder}: examples.parquet is not the file that manifest.json tells of; run `charter synthesize` into it again")


def _groups(items: Iterable[Example], size: int) -> Iterator[list[Example]]:
    group: list[Example] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
