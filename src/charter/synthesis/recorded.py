"""The recorded teacher: generations that ship with a constitution, replayed. Quick, repeatable and free."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

from charter.constitution import Clause, Constitution, load, shipped
from charter.errors import DataError, TeacherError
from charter.llm.cache import Usage
from charter.records import Turn, parse_object
from charter.synthesis.items import Item, Outcome, Written, written_for
from charter.synthesis.teachers import Expected

T = TypeVar("T")
REPLY_KINDS: tuple[Any, ...] = ("refusal", "compliance", "answer")


class RecordedTeacher:
    """Replays `constitutions/<name>/<clause>.jsonl`. Its check is the author's label, so it drops nothing."""

    name = "recorded"
    replies_per_clause: int | None = None
    rewrites = False

    def __init__(self, constitution: Constitution, folder: Traversable | None = None) -> None:
        """`folder` holds one JSONL file a clause; by default the one that ships with the constitution.

        Raises:
            TeacherError: the constitution, or one of its clauses, has no recorded generations.
        """
        self._folder = _shipped_folder(constitution) if folder is None else folder
        self.usage = Usage()
        self._constitution = constitution
        self._items: dict[str, dict[tuple[Turn, ...], Item]] = {}
        self._topics = _topics(self._folder / "topics.json")

    async def topics(self, clause: Clause) -> list[str]:
        """The subtopics that the recorded prompts of a clause were written over: `topics.json` beside them."""
        return self._topics.get(clause.id, [])

    async def prompts(self, clause: Clause, topics: Sequence[str], n: int | None) -> Outcome:
        """`n` of the recorded prompts of a clause, spread over its file; all of them where n is None. A clause without a file has none."""
        return Outcome([replace(item, replies=()) for item in spread(list(self._recorded(clause).values()), n)])

    async def replies(self, item: Item) -> tuple[Written, ...]:
        """The recorded replies of a recorded prompt."""
        if not item.teacher.startswith("recorded:"):
            return ()
        return self._recorded(self._constitution[item.clause]).get(item.turns, item).replies

    async def leaning(self, clause: Clause, counterpart: Clause) -> float:
        """None."""
        return 0.0

    async def odds(self, item: Item, clause: Clause, counterpart: Clause | None) -> float:
        """No doubt: a recorded item carries its author's label."""
        return math.inf

    async def rewrite(self, text: str, instruction: str) -> str | None:
        """None: it only has what was recorded."""
        return None

    def rewriting(self, texts: int) -> Expected:
        """No calls."""
        return Expected()

    def expected(self, clause: Clause, n: int | None, replies: int | None) -> Expected:
        """No calls."""
        return Expected()

    def _recorded(self, clause: Clause) -> dict[tuple[Turn, ...], Item]:
        """The recorded items of a clause by their turns, read once: on a cluster another worker may have read its prompts."""
        if clause.id not in self._items:
            file = self._folder / f"{clause.id}.jsonl"
            items = self._items[clause.id] = {}
            for where, row in read_rows(file) if file.is_file() else ():
                item = written_for(clause, turns_of(row, where), f"recorded:{row.get('by', 'authored')}")
                items[item.turns] = replace(item, replies=replies_of(row))
        return self._items[clause.id]


def _topics(file: Traversable) -> dict[str, list[str]]:
    """Subtopics by clause id; none without the file.

    Raises:
        DataError: it is no object of lists of texts.
    """
    if not file.is_file():
        return {}
    found = parse_object(file.read_text(encoding="utf-8"), file.name)
    for clause, names in found.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{file.name}: {clause!r} must have a list of subtopics, each a text")
    return found


def spread(rows: Sequence[T], n: int | None) -> list[T]:
    """At most `n` rows at even distances, in their order: files grew over time, and their beginnings are of one kind."""
    if n is None or n >= len(rows):
        return list(rows)
    return [rows[place * len(rows) // n] for place in range(n)]


def read_rows(file: Traversable) -> Iterator[tuple[str, dict[str, Any]]]:
    r"""The rows of a JSONL resource with where they stand. Lines end at \n only: text may hold U+2028."""
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            where = f"{file.name}:{number}"
            yield where, parse_object(line, where)


def turns_of(row: dict[str, Any], where: str) -> tuple[Turn, ...]:
    """The turns of a recorded row: `prompt` is a text, or user and assistant in turn, ending with the user.

    Raises:
        DataError: it is neither.
    """
    prompt = row.get("prompt")
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or len(texts) % 2 == 0 or not all(isinstance(t, str) and t.strip() for t in texts):
        raise DataError(f"{where}: `prompt` must be a text, or an odd number of texts by user and assistant in turn")
    system = (Turn("system", row["system"]),) if row.get("system") else ()
    return (*system, *(Turn(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)))


def replies_of(row: dict[str, Any]) -> tuple[Written, ...]:
    """The replies of a recorded row: the short ones, one of a kind, and after them any number of long ones, `at_length`.

    `answer_by` and a long reply's `by` name who wrote it, where that is not who wrote the prompt.
    """
    by = row.get("answer_by")
    writer = f"recorded:{by}" if by else None
    short = [Written(kind, row[kind], writer if kind == "answer" else None) for kind in REPLY_KINDS if row.get(kind)]
    return (*short, *(Written(r["kind"], r["text"], f"recorded:{r.get('by', 'authored')}", long=True) for r in row.get("at_length", ())))


def _shipped_folder(constitution: Constitution) -> Traversable:
    """Where the generations of a shipped constitution lie. Those of a clause with another text would not fit it."""
    folder = resources.files("charter") / "constitutions" / constitution.name
    if constitution.name not in shipped() or not folder.is_dir():
        raise TeacherError(
            f"the constitution {constitution.name!r} has no recorded generations (these have: {', '.join(shipped())}); "
            "pass --teacher embedded, or --teacher URL with --teacher-model, to write them"
        )
    known = {c.id: (c.side, c.text) for c in load(constitution.name).clauses}
    for clause in constitution.clauses:
        if known.get(clause.id) != (clause.side, clause.text):
            raise TeacherError(
                f"clause {clause.id!r} of {constitution.name!r} is not the shipped one, so it has no recorded generations; "
                "pass --teacher embedded, or --teacher URL with --teacher-model, to write them"
            )
    return folder
