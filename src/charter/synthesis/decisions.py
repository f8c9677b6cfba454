"""What a person decided on the least certain items: kept line by line, applied to the rows at once and to the items of every later run.

`reviewed.jsonl` beside the examples has a line for each decision. A decision on what isn't there any more is ignored and counted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from charter.constitution import Clause, Constitution
from charter.errors import DataError
from charter.records import Example, parse_object, read_examples, read_jsonl, sha256, together, write_examples, write_text
from charter.synthesis.items import TURNING, Item, Key, Outcome, Written, counterparts, home, key
from charter.synthesis.manifest import Manifest

FILE = "reviewed.jsonl"
Choice = Literal["keep", "flip", "drop", "undo"]
"""`flip` files an item under the counterpart of its clause; `undo` takes back the decision before it on the same item."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on an item, named by its parent and by the clause (or slice of a pool) that it was written for."""

    id: str
    home: str
    choice: Choice

    @property
    def key(self) -> Key:
        return self.id, self.home


def read_decisions(folder: Path) -> dict[Key, Decision]:
    """The decision that stands for each item; empty without a file.

    Raises:
        DataError: naming the line that is no decision.
    """
    path = folder / FILE
    history: dict[Key, list[Decision]] = {}
    for number, row in read_jsonl(path) if path.is_file() else ():
        choice = row.get("choice")
        if choice not in ("keep", "flip", "drop", "undo") or not all(isinstance(row.get(f), str) for f in ("id", "home")):
            raise DataError(f"{path}:{number}: a decision needs `id`, `home` and a `choice` of keep, flip, drop or undo; mend or delete it")
        decision = Decision(row["id"], row["home"], choice)
        made = history.setdefault(decision.key, [])
        if choice != "undo":
            made.append(decision)
        elif made:
            made.pop()
    return {where: made[-1] for where, made in history.items() if made}


def decide(folder: Path, decision: Decision) -> None:
    """Append a decision; on disk when this returns.

    Raises:
        DataError: the file can't be written.
    """
    path = folder / FILE
    try:
        with path.open("a+b") as file:
            file.seek(max(0, file.tell() - 1))
            unended = file.read(1) not in (b"", b"\n")  # a person may have edited the file
            file.write((b"\n" if unended else b"") + json.dumps(asdict(decision)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"{path}: the decision can't be kept ({error.strerror or error}); free some room or mend the rights") from error


def reviewed(items: Sequence[Item], decisions: Mapping[Key, Decision], constitution: Constitution) -> tuple[Outcome, dict[str, int]]:
    """The stage: the items as decided, and how many decisions of each kind were met; `gone`: those that met no item."""
    outcome, met = Outcome([]), dict.fromkeys(("keep", "flip", "drop", "gone"), 0)
    opposite, left = counterparts(constitution), dict(decisions)
    for item in items:
        decision, other = left.pop(key(item), None), opposite.get(item.clause)
        if decision is None:
            outcome.kept.append(item)
        elif decision.choice == "drop":
            outcome.dropped[home(item), "dropped in review"] += 1
            met["drop"] += 1
        elif decision.choice == "flip":
            outcome.kept.append(flipped(item, other) if other else item)
            met["flip" if other else "gone"] += 1
        else:
            outcome.kept.append(item)
            met["keep"] += 1
    met["gone"] += len(left)
    return outcome, met


def dropped(present: Collection[Key], decisions: Mapping[Key, Decision]) -> list[list[str]]:
    """The items that are there and are to go."""
    return sorted(list(where) for where, decision in decisions.items() if decision.choice == "drop" and where in present)


def flipped(item: Item, clause: Clause) -> Item:
    """The item under the clause across the line, with the replies that may stay: what a reply does, the flip doesn't change.

    To a harmless prompt a compliance is an answer. A restricted prompt has none: its answers go.
    """
    if clause.restricted:
        replies = tuple(reply for reply in item.replies if reply.kind != "answer")
    else:
        replies = tuple(Written("answer", r.text, r.teacher) if r.kind == "compliance" else r for r in item.replies)
    return replace(item, clause=clause.id, side=clause.side, slice=f"{clause.side}:{clause.id}", replies=replies)


def apply(folder: Path, constitution: Constitution) -> int:
    """Write the decisions into the folder's examples.parquet, to the side and renamed; returns the rows that went or changed.

    Applying again changes nothing more. The manifest's figures on rows follow.

    Raises:
        DataError: a file can't be read or written.
    """
    decisions, opposite = read_decisions(folder), counterparts(constitution)
    moved = {parent for (parent, _), decision in decisions.items() if decision.choice in ("flip", "drop")}
    changed, present = 0, set[Key]()

    def rows() -> Iterator[Example]:
        nonlocal changed
        for row in read_examples(folder):
            decision = decisions.get((row.parent, row.clause or row.slice))
            turned = row.family == TURNING and row.parent in moved  # goes with the permitted item it starts from
            if row.family != TURNING:
                present.add((row.parent, row.clause or row.slice))
            new = None if turned else _row(row, decision, opposite.get(row.clause))
            changed += new != row
            if new is not None:
                yield new

    tally = Manifest({}, "", 0, {})
    try:
        with together(folder, last="manifest.json") as aside:
            write_examples(aside / "examples.parquet", tally.counting(rows()))
            tally.examples = sha256(aside / "examples.parquet")
            _recount(folder / "manifest.json", aside, tally, decisions, present, opposite)
    except OSError as error:
        raise DataError(f"{folder}: the decisions can't be applied ({error.strerror or error}); they are safe in {FILE}") from error
    return changed


def _row(row: Example, decision: Decision | None, other: Clause | None) -> Example | None:
    """The row as decided; None where it goes."""
    if decision is not None and decision.choice == "drop":
        return None
    if decision is None or decision.choice != "flip" or other is None:
        return row
    reply = row.reply_restricted
    if other.restricted and reply is not None:
        return None
    return replace(
        row, clause=other.id, side=other.side, slice=f"{other.side}:{other.id}", prompt_restricted=other.restricted,
        reply_restricted=None if reply is None else False, clause_hash=other.hash,
    )  # fmt: skip


def _recount(
    path: Path, aside: Path, tally: Manifest, decisions: Mapping[Key, Decision], present: set[Key], opposite: Mapping[str, Clause]
) -> None:
    """Bring the manifest's figures up to date, where there is a manifest; the new one is written aside."""
    if not path.is_file():
        return
    try:
        manifest = parse_object(path.read_text(encoding="utf-8"), str(path))
    except (DataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no manifest ({error}); run `charter synthesize` again") from error
    known = present | {tuple(where) for where in manifest.get("dropped", ()) if isinstance(where, list)}
    met = dict.fromkeys(("keep", "flip", "drop", "gone"), 0)
    for decision in decisions.values():
        met[decision.choice if _meets(decision, present, known, opposite.get(decision.home)) else "gone"] += 1
    manifest |= {"rows": tally.rows, "counts": tally.counts, "examples": tally.examples}
    manifest |= {"reviewed": met, "dropped": dropped(known, decisions)}
    write_text(aside / path.name, json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")


def _meets(decision: Decision, present: set[Key], known: set[Key], other: Clause | None) -> bool:
    """Whether there is an item to decide on; one that was dropped before is known, one that was flipped lies across the line."""
    if decision.choice == "flip":
        return other is not None and not present.isdisjoint({decision.key, (decision.id, other.id)})
    return decision.key in (known if decision.choice == "drop" else present)
