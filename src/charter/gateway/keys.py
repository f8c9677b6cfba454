"""API keys of the gateway's own: who may ask, how often, how much at once. The file holds hashes, never a key.

A key is 256 random bits, so one SHA-256 is as good as a slow hash: there is no dictionary to try.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from charter.errors import DataError
from charter.records import write_text

PREFIX = "charter-"
SCHEMA = 1
LOOK_S = 1.0
"""How often the file is looked at for changes, so that a key that was taken out stops working without a restart."""
log = logging.getLogger("charter.gateway")


class Key(BaseModel):
    """One key: its name, its hash, its limits. None: no limit of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w.@-]{1,64}$")
    """What logs say in its place."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    requests_per_minute: int | None = Field(None, ge=1, le=1_000_000)
    streams: int | None = Field(None, ge=1)
    """Requests open at once, streamed or not."""
    max_body: int | None = Field(None, ge=1)
    """Largest request in bytes, where that is less than the gateway's own limit."""


class KeyFile(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid")

    schema_: int = Field(SCHEMA, alias="schema")
    keys: list[Key]


def read_keys(path: Path) -> list[Key]:
    """The keys of a file.

    Raises:
        DataError: it can't be read, is none, is of another schema, or a name stands twice.
    """
    try:
        file = KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: the keys can't be read ({error.strerror}); `charter keys {path} --add NAME` makes the file") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path}: this is no file of keys ({where}: {first['msg']}); make one with `charter keys`") from error
    if file.schema_ != SCHEMA:
        raise DataError(f"{path}: these keys have schema {file.schema_}, this version of Charter reads schema {SCHEMA}; make them anew")
    names = [key.name for key in file.keys]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a name stands twice; give every key its own")
    return file.keys


def write_keys(path: Path, keys: list[Key]) -> None:
    """Replace the file, readable by its owner alone."""
    text = KeyFile(schema=SCHEMA, keys=keys).model_dump_json(by_alias=True, indent=1, exclude_none=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    os.chmod(path, 0o600)


def new_key() -> str:
    """A key, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def hashed(key: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class TooMany(Exception):
    """A key's limit is reached. Says which, and in how many seconds to try again."""

    def __init__(self, sentence: str, retry_after_s: float) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class Usage:
    """What one key has asked for lately. The limit holds for every window of a minute, not only for whole minutes of the clock."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.open = 0

    def admit(self, key: Key, now: float) -> None:
        """Count a request in.

        Raises:
            TooMany: it is one too many; nothing is counted.
        """
        self.times = [t for t in self.times if now - t < 60.0]
        if key.requests_per_minute is not None and len(self.times) >= key.requests_per_minute:
            raise TooMany(f"this key may make {key.requests_per_minute:,} requests a minute", 60.0 - (now - self.times[0]))
        if key.streams is not None and self.open >= key.streams:
            raise TooMany(f"this key may have {key.streams:,} requests open at once; wait until one has ended", 1.0)
        if key.requests_per_minute is not None:
            self.times.append(now)
        self.open += 1


class KeyRing:
    """The keys of a running gateway, read anew when the file changes. Used on the event loop only."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._keys = read_keys(path)
        if not self._keys:
            raise DataError(f"{path}: there is no key in it, so nobody could ask; add one: charter keys {path} --add NAME")
        self._state, self._looked = self._stat(), clock()
        self._usage: dict[str, Usage] = {}

    def find(self, presented: str) -> Key | None:
        """The key that this is. Every hash is compared, each in constant time."""
        self._refresh()
        digest = hashed(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    @contextmanager
    def using(self, key: Key) -> Iterator[None]:
        """One request of a key's.

        Raises:
            TooMany: at once, where a limit is reached.
        """
        usage = self._usage.setdefault(key.name, Usage())
        usage.admit(key, self._clock())
        try:
            yield
        finally:
            usage.open -= 1

    def _refresh(self) -> None:
        """Look at the file now and then. One that went bad changes nothing: a slip of the pen should not lock everybody out."""
        now = self._clock()
        if now - self._looked < LOOK_S:
            return
        self._looked, state = now, self._stat()
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = read_keys(self._path)
            log.warning("the keys were read anew: %d", len(self._keys))
        except DataError as error:
            log.error("the keys stay as they were: %s", error)

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
