"""The rules in plain language: load them, check them, hash them, tell two versions apart.

A constitution is a YAML file of clauses. Each complaint about one names the file, the line, the clause and the mend.
The hash of a clause covers what shapes its data (text, examples, counterpart), so an edit regenerates that clause only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Any, cast

from charter.errors import ConstitutionError
from charter.records import Side

MAX_BYTES = 1_000_000
"""A constitution is written by people; a larger file is a mistake or an attack."""
DEEPEST = 16
"""Levels of nesting in the YAML; four are needed."""
ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
TOP_KEYS = {"name", "version", "purpose", "clauses"}
CLAUSE_KEYS = {"id", "side", "title", "text", "examples", "counterpart"}


@dataclass(frozen=True, slots=True)
class Clause:
    """One rule."""

    id: str
    side: Side
    title: str
    text: str
    examples: tuple[str, ...] = ()
    counterpart: str | None = None
    """On a restricted clause: the permitted clause that lies next to it."""

    @property
    def restricted(self) -> bool:
        return self.side == "restricted"

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all that shapes the clause's data."""
        return _digest([self.id, self.side, self.title, self.text, list(self.examples), self.counterpart])


@dataclass(frozen=True, slots=True)
class Constitution:
    """A named, versioned list of clauses."""

    name: str
    version: str
    purpose: str
    clauses: tuple[Clause, ...]
    source: str
    """The YAML text it was read from, comments and all: kept in the guard folder."""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def __getitem__(self, clause: str) -> Clause:
        return next(c for c in self.clauses if c.id == clause)

    @property
    def restricted(self) -> tuple[Clause, ...]:
        return tuple(c for c in self.clauses if c.restricted)

    @property
    def permitted(self) -> tuple[Clause, ...]:
        return tuple(c for c in self.clauses if not c.restricted)

    @property
    def hash(self) -> str:
        """Hash of the name and of every clause, in order; purpose, version and comments don't count."""
        return _digest([self.name, [c.hash for c in self.clauses]])


def shipped() -> list[str]:
    """Names of the constitutions that come with Charter."""
    folder = resources.files("charter") / "constitutions"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load(name_or_path: str | Path) -> Constitution:
    """A shipped constitution by name, or a YAML file.

    Raises:
        ConstitutionError: it can't be read or fails a check; all errors are told at once, a line each.
    """
    name = str(name_or_path)
    path = Path(name)
    if ID.fullmatch(name) and name in shipped() and not path.is_file():
        path = Path(str(resources.files("charter") / "constitutions" / f"{name}.yaml"))
    if not path.is_file():
        raise ConstitutionError(
            f"{name}: there is no such file, and the shipped constitutions are {', '.join(shipped())}; `charter init` writes a starter"
        )
    if path.stat().st_size > MAX_BYTES:
        raise ConstitutionError(f"{name}: larger than {MAX_BYTES:,} bytes; a constitution holds rules, not data")
    try:
        return parse(path.read_text(encoding="utf-8"), name)
    except UnicodeDecodeError as error:
        raise ConstitutionError(f"{name}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error


def parse(text: str, where: str) -> Constitution:
    """A constitution from YAML text; `where` is the file's name in complaints.

    Raises:
        ConstitutionError: it is malformed or fails a check.
    """
    tree = _yaml(text, where)
    check = _Checker(where)
    clauses = tuple(check.clauses(tree))
    check.relations(clauses)
    if check.errors:
        raise ConstitutionError("\n".join(check.errors))
    version = str(tree.get("version", "0"))
    return Constitution(str(tree["name"]), version, " ".join(str(tree.get("purpose", "")).split()), clauses, text, tuple(check.warnings))


@dataclass(frozen=True, slots=True)
class Change:
    """A clause that differs between two constitutions."""

    clause: str
    kind: str
    """added, removed or changed"""
    fields: tuple[str, ...] = ()


def diff(old: Constitution, new: Constitution) -> list[Change]:
    """Clauses added, removed or changed: those whose data must be written again."""
    before, after = ({c.id: c for c in constitution.clauses} for constitution in (old, new))
    changes = [Change(name, "removed") for name in before if name not in after]
    for name, clause in after.items():
        if name not in before:
            changes.append(Change(name, "added"))
        elif clause.hash != before[name].hash:
            differing = tuple(
                f for f in ("side", "title", "text", "examples", "counterpart") if getattr(clause, f) != getattr(before[name], f)
            )
            changes.append(Change(name, "changed", differing))
    return changes


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()[:16]


def _yaml(text: str, where: str) -> Any:
    """The tree with its line numbers. The round-trip loader builds no Python objects from tags."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import TaggedScalar
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _refuse_tricks(YAML().scan(StringIO(text)), where)
        tree = YAML().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConstitutionError(
            f"{where}:{line}: not valid YAML: {error.problem}; look for a missing colon, quote or indent there"
        ) from error
    except YAMLError as error:
        raise ConstitutionError(f"{where}: not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict) or isinstance(tree, TaggedScalar):
        raise ConstitutionError(
            f"{where}:1: a constitution has the keys name, version, purpose and clauses; `charter init` writes a starter"
        )
    return tree


def _refuse_tricks(tokens: Iterable[Any], where: str) -> None:
    """A few lines of nested aliases unfold to gigabytes, and deep nesting to a stack overflow."""
    from ruamel.yaml import tokens as t

    depth = 0
    for token in tokens:
        line = token.start_mark.line + 1
        if isinstance(token, t.AliasToken | t.TagToken):
            raise ConstitutionError(f"{where}:{line}: YAML aliases and tags are not accepted; write the text out in plain words")
        if isinstance(token, t.BlockSequenceStartToken | t.BlockMappingStartToken | t.FlowSequenceStartToken | t.FlowMappingStartToken):
            depth += 1
        elif isinstance(token, t.BlockEndToken | t.FlowSequenceEndToken | t.FlowMappingEndToken):
            depth -= 1
        if depth > DEEPEST:
            raise ConstitutionError(f"{where}:{line}: nested too deeply; a constitution is a list of clauses, each with plain keys")


class _Checker:
    """Collects every complaint about one file, so that all are mended in one go."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._lines: dict[str, int] = {}

    def clauses(self, tree: Any) -> Iterator[Clause]:
        for key in tree:
            if key not in TOP_KEYS:
                self._error(tree.lc.key(key)[0] + 1, None, f"unknown key {key!r}; a constitution has name, version, purpose and clauses")
        if not isinstance(tree.get("name"), str) or not ID.fullmatch(tree["name"]):
            self._error(1, None, "`name` must be lower-case words joined by hyphens, such as `name: bank-assistant`")
        entries: Any = tree.get("clauses")
        if not hasattr(entries, "lc") or not hasattr(entries, "append") or not entries:
            self._error(1, None, "`clauses` must be a list of at least one restricted and one permitted clause")
            return
        for number, entry in enumerate(entries):
            clause = self._clause(entry, entries.lc.item(number)[0] + 1)
            if clause is not None:
                yield clause

    def relations(self, clauses: tuple[Clause, ...]) -> None:
        """What can be judged only once all clauses are known."""
        sides = {c.id: c.side for c in clauses}
        if not self.errors and set(sides.values()) != {"restricted", "permitted"}:
            self._error(1, None, "at least one restricted and one permitted clause are needed; a classifier learns from both sides")
        for clause in clauses:
            line = self._lines[clause.id]
            if not clause.restricted:
                continue
            if clause.counterpart is None:
                self.warnings.append(
                    self._sentence(
                        line, clause.id, "no `counterpart`; name the permitted clause next to it, or harmless near misses will be refused"
                    )
                )
            elif sides.get(clause.counterpart) != "permitted":
                self._error(
                    line,
                    clause.id,
                    f"counterpart {clause.counterpart!r} is not a permitted clause of this file; correct the name or add the clause",
                )

    def _clause(self, entry: Any, line: int) -> Clause | None:
        if not hasattr(entry, "lc") or not hasattr(entry, "items"):
            self._error(line, None, "a clause has the keys id, side, title, text, examples and counterpart")
            return None
        name, before = entry.get("id"), len(self.errors)
        label = name if isinstance(name, str) else None
        for key in entry:
            if key not in CLAUSE_KEYS:
                self._error(
                    entry.lc.key(key)[0] + 1, label, f"unknown key {key!r}; a clause has id, side, title, text, examples and counterpart"
                )
        if label is None or not ID.fullmatch(label):
            self._error(line, label, "`id` must be lower-case words joined by hyphens, such as `id: tax-advice`")
        elif label in self._lines:
            self._error(line, label, f"the id is taken by the clause in line {self._lines[label]}; choose another")
        side = entry.get("side")
        if side not in ("restricted", "permitted"):
            self._error(line, label, "`side` must be `restricted` or `permitted`")
        for key in ("title", "text"):
            if not isinstance(entry.get(key), str) or not entry[key].strip():
                self._error(line, label, f"`{key}` must be a sentence in plain words")
        examples = self._examples(entry, label, line)
        counterpart = entry.get("counterpart")
        if counterpart is not None and (side == "permitted" or not isinstance(counterpart, str)):
            self._error(line, label, "`counterpart` belongs on a restricted clause and names one permitted clause")
        if len(self.errors) > before:
            return None
        self._lines[cast(str, label)] = line
        title, text = (" ".join(str(entry[key]).split()) for key in ("title", "text"))
        return Clause(cast(str, label), cast(Side, side), title, text, examples, None if counterpart is None else str(counterpart))

    def _examples(self, entry: Any, label: str | None, line: int) -> tuple[str, ...]:
        examples = entry.get("examples")
        if not isinstance(examples, list) or not examples or not all(isinstance(e, str) and e.strip() for e in examples):
            self._error(
                line, label, "`examples` must list at least one short request; the teacher starts from it (quote lines that hold a colon)"
            )
            return ()
        return tuple(" ".join(str(e).split()) for e in examples)

    def _error(self, line: int, clause: str | None, mend: str) -> None:
        self.errors.append(self._sentence(line, clause, mend))

    def _sentence(self, line: int, clause: str | None, mend: str) -> str:
        return f"{self.where}:{line}: " + (f"clause {clause!r}: " if clause else "") + mend
