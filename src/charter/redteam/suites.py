"""Static suites: files of templates with a slot for the request, or of whole prompts that are questions of their own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from charter.errors import DataError, NoData
from charter.records import parse_turns, read_jsonl
from charter.redteam.questions import Question, asked
from charter.redteam.strategies import Attack, Kit, Named, Try, plain
from charter.synthesis.families.family import replaced

SLOTS = ("{prompt}", "{query}", "[INSERT PROMPT HERE]", "[PROMPT]", "{{ prompt }}")
"""What stands for the request in a template."""
TEMPLATE = "attack_template"
"""The label of rows that are templates; one without a slot is put before the request."""


def suite(file: Path) -> list[Named]:
    """The strategies of a file: one over its templates, one that asks its whole prompts; rows {"template"}, {"prompt"} or {"messages"}.

    Raises:
        DataError: a row is off; names the file and line.
        NoData: the file holds none.
    """
    if not file.is_file():
        raise DataError(f"{file}: there is no such file of attacks")
    name = file.name.removesuffix(".gz").removesuffix(".jsonl")
    templates: dict[str, str] = {}
    prompts: dict[str, Question] = {}
    for number, row in read_jsonl(file):
        where, key = f"{file}:{number}", str(row.get("id", number))
        if key in templates or key in prompts:
            raise DataError(f"{where}: the id {key!r} stands twice; give every row its own")
        text = _template(row, where)
        if text is not None:
            templates[key] = text
        else:
            prompts[key] = Question(f"{name}:{key}", asked(row, where), str(row.get("clause") or row.get("category") or ""))
    if not templates and not prompts:
        raise NoData(f"{file}: holds no attacks")
    out = [Named(f"suite:{name}", "suite", partial(_filled, templates))] if templates else []
    return out + ([Named(f"prompts:{name}", "suite", plain, questions=tuple(prompts.values()))] if prompts else [])


def fill(template: str, prompt: str) -> str:
    """A template with the request in its slot, or after it."""
    for slot in SLOTS:
        if slot in template:
            return template.replace(slot, prompt)
    return f"{template}\n\n{prompt}"


async def _filled(templates: dict[str, str], question: Question, kit: Kit) -> Attack:
    """Templates in random order, one a try."""
    for key in kit.rng.sample(sorted(templates), min(kit.tries, len(templates))):
        if (yield Try(replaced(question.turns, fill(templates[key], question.text)), key)).judged.success:
            return


def _template(row: dict[str, object], where: str) -> str | None:
    """The row's template; None where it is a whole prompt."""
    if isinstance(row.get("template"), str) and row["template"]:
        return str(row["template"])
    if "messages" not in row and "prompt" not in row:
        raise DataError(f"{where}: the row needs a `template` with {SLOTS[0]}, a `prompt`, or `messages`")
    text = str(row["prompt"]) if row.get("prompt") else parse_turns(row["messages"], where)[-1].content
    return text if row.get("label") == TEMPLATE or any(slot in text for slot in SLOTS) else None


def all_of(files: Sequence[Path]) -> list[Named]:
    """The strategies of several files.

    Raises:
        DataError: a file is off, or two give a strategy of one name.
    """
    out: dict[str, Named] = {}
    for file in files:
        for s in suite(file):
            if s.name in out:
                raise DataError(f"{file}: another suite is called {s.name!r}; rename one of the files")
            out[s.name] = s
    return list(out.values())
