"""Texts that must never become training data, such as those of public benchmarks: a list of their hashes refuses them.

A text is refused where it is the same but for case, white space, form of characters and the punctuation around it, or
shares four fifths of its runs of three words. Only hashes are kept.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from charter.errors import DataError
from charter.records import parse_turns, read_jsonl
from charter.synthesis.items import Item, Outcome, home
from charter.synthesis.twins import Shingles, Twins, numbered, shingles

THRESHOLD = 0.8
"""Jaccard similarity of word 3-shingles from which a text counts as an excluded one."""
SHORTEST = 4
"""Shingles of a text of six words. Shorter prompts are refused only where they are the same, shorter replies and earlier turns
never: "Yes." and "hello" are nobody's."""
LONGEST = 4_000
"""Shingles of a text above which only its hash counts: no item is that long."""
REASON = "in an excluded set"


class Excluded:
    """The hashes of texts that are refused."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._hashes: set[int] = set()
        sets: list[Shingles] = []
        for text in texts:
            plain = _normalised(text)
            key = _hash(plain)
            if plain and key not in self._hashes:
                self._hashes.add(key)
                numbers = numbered(plain)
                if SHORTEST <= len(numbers) <= LONGEST:
                    sets.append(numbers)
        self._twins = Twins(sets, THRESHOLD)

    @classmethod
    def read(cls, folders: Sequence[Path]) -> Excluded:
        """The user and assistant texts of every *.jsonl and *.jsonl.gz of the folders.

        A row has `messages`, a list of {role, content}, or `prompt` or `text`.

        Raises:
            DataError: a folder isn't there or holds no row, or a row has no text.
        """
        return cls(text for folder in folders for text in _texts(folder))

    def __len__(self) -> int:
        """Different texts."""
        return len(self._hashes)

    def holds(self, text: str) -> bool:
        """Whether the text is one of them, or nearly."""
        plain = _normalised(text)
        if not plain or _hash(plain) in self._hashes:
            return bool(plain)
        numbers = numbered(plain)
        return len(numbers) >= SHORTEST and next(self._twins.of(numbers), None) is not None

    def refuses(self, item: Item) -> bool:
        """Whether the item's prompt, an earlier turn of the user, or a reply is one of them."""
        earlier = (turn.content for turn in item.turns[:-1] if turn.role == "user")
        passing = (text for text in (*earlier, *(reply.text for reply in item.replies)) if _long(text))
        return any(self.holds(text) for text in (item.prompt, *passing))


def exclude(items: Sequence[Item], excluded: Excluded) -> Outcome:
    """The stage: the items that are not refused."""
    outcome = Outcome([], Counter())
    for item in items:
        if excluded.refuses(item):
            outcome.dropped[home(item), REASON] += 1
        else:
            outcome.kept.append(item)
    return outcome


def _texts(folder: Path) -> Iterator[str]:
    """All texts of a folder, file by file."""
    files = sorted((*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")))
    rows = 0
    for file in files:
        for number, row in read_jsonl(file):
            rows += 1
            yield from _of_row(row, f"{file}:{number}")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of texts to exclude; give one that holds *.jsonl or *.jsonl.gz files")
    if not rows:
        raise DataError(f"{folder}: there is no row in any *.jsonl or *.jsonl.gz; give a folder that holds the texts to exclude")


def _of_row(row: Mapping[str, Any], where: str) -> Iterator[str]:
    if "messages" in row:
        for turn in parse_turns(row["messages"], where):
            if turn.role == "user" or (turn.role == "assistant" and _long(turn.content)):
                yield turn.content
        return
    texts = [row[key] for key in ("prompt", "text") if key in row]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: a row to exclude needs `messages`, or a text in `prompt` or `text`")
    yield from texts


def _long(text: str) -> bool:
    return len(shingles(text)) >= SHORTEST


def _normalised(text: str) -> str:
    """The text in one form: compatible characters, no case, single spaces, no punctuation or symbols at the ends."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    start, end = 0, len(plain)
    while start < end and not plain[start].isalnum():
        start += 1
    while end > start and not plain[end - 1].isalnum():
        end -= 1
    return plain[start:end]


def _hash(text: str) -> int:
    """64 bits of a text: among millions of texts a wrong refusal is a matter of one in a million."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
