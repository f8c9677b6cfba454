"""What people decided on a gateway's verdicts, as examples: the rows of `charter audit --export`.

The label is the person's. The rows train, and never calibrate or test: a guard chose them, so they are a sample of its own
doubts and of no traffic. What nearly equals an item that calibrates or tests is left out for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from charter.constitution import Clause, Constitution
from charter.errors import DataError
from charter.records import parse_turns, read_jsonl
from charter.synthesis.exclude import Excluded, exclude
from charter.synthesis.items import TURNING, Item, Outcome, Written, counterparts, written_for
from charter.synthesis.split import AUDITED, split_of


def read_audited(paths: Sequence[Path], constitution: Constitution) -> Outcome:
    """The items of exported verdicts, and why others are none.

    A restricted row belongs to the clause that fired; a harmless one, which the guard took for it, to that clause's counterpart.
    A decision on a reply says nothing of its prompt, so such an item gives no row without the reply.

    Raises:
        DataError: a row is none that `charter audit` exports, or none can be used.
    """
    opposite, outcome = counterparts(constitution), Outcome([])
    for path in paths:
        for number, row in read_jsonl(path):
            where = f"{path}:{number}"
            turns, side = parse_turns(row.get("messages"), where), row.get("side")
            if side not in ("restricted", "permitted") or row.get("kind") not in ("prompt", "response"):
                raise DataError(f"{where}: this is no row of an audit log's export; write one with `charter audit DB --export FILE`")
            fired = next((c for c in constitution.clauses if c.id == row.get("category")), None)
            clause = fired if side == "restricted" or fired is None else opposite.get(fired.id)
            prompt = turns if row["kind"] == "prompt" else turns[:-1]
            if clause is None or not prompt or prompt[-1].role != "user" or (row["kind"] == "response" and turns[-1].role != "assistant"):
                outcome.dropped[str(row.get("category")), _why(fired, clause)] += 1
            else:
                outcome.kept.append(_item(row, clause, prompt, turns[-1].content))
    if not outcome.kept:
        reasons = ", ".join(f"{n:,} {why}" for (_, why), n in outcome.dropped.items()) or "there are none"
        raise DataError(f"{paths[0]}: no exported verdict can be used ({reasons}); export more, or build without them")
    return outcome


def beside(audited: Outcome, items: Sequence[Item], excluded: Excluded | None) -> Outcome:
    """The audited items that may stand beside the others: none twice, none that calibrates or tests already, none that is excluded."""
    kept = audited
    if excluded is not None:
        kept = _then(kept, exclude(kept.kept, excluded))
    measured = Excluded(turn.content for item in items if split_of(item.group) != "train" for turn in item.turns if turn.role == "user")
    kept = _then(kept, exclude(kept.kept, measured))
    seen = {turns for item in items for turns in _rows(item)}
    out = Outcome([], kept.dropped)
    for item in kept.kept:
        own = _rows(item)
        if seen.isdisjoint(own):
            out.kept.append(item)
        else:
            out.dropped[item.clause, "exact duplicate"] += 1
        seen |= own
    return out


def _item(row: dict[str, Any], clause: Clause, prompt: Any, last: str) -> Item:
    item = written_for(clause, prompt, f"{AUDITED}{row.get('guard_hash') or 'unknown'}")
    item = replace(item, kin=f"{AUDITED}{item.parent}")
    if row["kind"] == "prompt":
        return item
    reply = Written("compliance" if clause.restricted else "answer", last)
    return replace(item, family=TURNING, replies=(reply,))


def _why(fired: Clause | None, clause: Clause | None) -> str:
    if fired is None:
        return "clause is not in the constitution"
    return "clause has no counterpart" if clause is None else "does not end in a prompt and its reply"


def _rows(item: Item) -> set[str]:
    """The ids of the rows that an item gives."""
    return {row.id for row in item.rows(0, "train", "")}


def _then(before: Outcome, after: Outcome) -> Outcome:
    return Outcome(after.kept, before.dropped + after.dropped)
