"""The recorded teacher: generations that ship with a constitution, replayed. Quick, repeatable and free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from charter.constitution import Clause, Constitution, load, shipped
from charter.errors import DataError, TeacherError
from charter.records import Turn, parse_object
from charter.synthesis.items import Item, Written, written_for
from charter.synthesis.teachers import Expected

REPLY_KINDS: tuple[Any, ...] = ("refusal", "compliance", "answer")


class RecordedTeacher:
    """Replays `constitutions/<name>/<clause>.jsonl`. Its check is the author's label, so it drops nothing."""

    name = "recorded"
    replies_per_clause: int | None = None

    def __init__(self, constitution: Constitution, folder: Traversable | None = None) -> None:
        """`folder` holds one JSONL file a clause; by default the one that ships with the constitution.

        Raises:
            TeacherError: the constitution, or one of its clauses, has no recorded generations.
        """
        self._folder = _shipped_folder(constitution) if folder is None else folder
        self._replies: dict[tuple[str, tuple[Turn, ...]], tuple[Written, ...]] = {}

    async def topics(self, clause: Clause) -> list[str]:
        """None: the recorded prompts were written for theirs."""
        return []

    async def prompts(self, clause: Clause, topics: Sequence[str], n: int | None) -> list[Item]:
        """The first `n` recorded prompts of a clause; all of them where n is None. A clause without a file has none."""
        file = self._folder / f"{clause.id}.jsonl"
        if not file.is_file():
            return []
        items = []
        for where, row in list(read_rows(file))[:n]:
            item = written_for(clause, turns_of(row, where), f"recorded:{row.get('by', 'authored')}")
            self._replies[clause.id, item.turns] = replies_of(row)
            items.append(item)
        return items

    async def replies(self, item: Item) -> tuple[Written, ...]:
        """The recorded replies of a recorded prompt."""
        return self._replies.get((item.clause, item.turns), ())

    async def agrees(self, item: Item, clause: Clause, counterpart: Clause | None) -> bool:
        """Always: a recorded item carries its author's label."""
        return True

    def expected(self, clause: Clause, n: int | None, replies: int | None) -> Expected:
        """No calls."""
        return Expected()


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
    """The replies of a recorded row. `answer_by` names who wrote the answer, where that is not who wrote the prompt."""
    by = row.get("answer_by")
    writer = f"recorded:{by}" if by else None
    return tuple(Written(kind, row[kind], writer if kind == "answer" else None) for kind in REPLY_KINDS if row.get(kind))


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
