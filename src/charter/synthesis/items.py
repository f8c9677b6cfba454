"""The record that flows through the stages: a written conversation with its replies, before it becomes rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from charter.constitution import Clause, Constitution
from charter.records import Example, Side, Split, Turn

ReplyKind = Literal["refusal", "compliance", "deflection", "answer"]
"""A deflection neither helps with a restricted prompt nor refuses it."""
ORDINARY = "pool:"
"""Begins the `kin` of items that come from the benign pools, and have near-twins in no clause."""
TURNING = "turning"
"""The family of exchanges whose reply starts as an answer and turns; such items give no row without the reply."""
Key = tuple[str, str]
"""Parent of an item, and its clause or the slice of its pool."""


@dataclass(frozen=True, slots=True)
class Written:
    """A reply and what it does: only a compliance is restricted."""

    kind: ReplyKind
    text: str
    teacher: str | None = None
    """Who wrote it, where that is not who wrote the prompt."""
    long: bool = False
    """It is one of those at length, as assistants write them; the others are a few sentences."""

    @property
    def restricted(self) -> bool:
        return self.kind == "compliance"


@dataclass(frozen=True, slots=True)
class Item:
    """A conversation that ends in the user's prompt, with the replies it got."""

    turns: tuple[Turn, ...]
    clause: str
    """Empty for the benign pools."""
    side: Side
    slice: str
    parent: str
    """Id of the plain conversation it was made from; its own where it is plain."""
    teacher: str
    replies: tuple[Written, ...] = ()
    family: str = "plain"
    kin: str = ""
    """Smallest parent among its near-twins (see kin.py); empty before they are sought."""

    @property
    def group(self) -> str:
        """What the split goes by: its near-twins together, or its parent alone."""
        return self.kin or self.parent

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return self.turns[-1].content

    @property
    def text(self) -> str:
        """All turns, a line each."""
        return "\n".join(t.content for t in self.turns)

    @property
    def prompt_restricted(self) -> bool:
        return self.side == "restricted" and self.family != TURNING

    def with_prompt(self, text: str, family: str) -> Item:
        """The same item with its last user turn in another form."""
        return self.with_turns((*self.turns[:-1], Turn(self.turns[-1].role, text)), family)

    def with_turns(self, turns: tuple[Turn, ...], family: str) -> Item:
        """The same item with its conversation in another form."""
        return replace(self, turns=turns, family=family)

    def rows(self, seed: int, split: Split, clause_hash: str) -> Iterator[Example]:
        """One row without a reply (the prompt view), and one for each reply."""
        replies: list[Written | None] = [] if self.family == TURNING else [None]
        for reply in (*replies, *self.replies):
            turns = self.turns if reply is None else (*self.turns, Turn("assistant", reply.text))
            yield Example(
                id=digest(turns), turns=turns, prompt_restricted=self.prompt_restricted,
                reply_restricted=None if reply is None else reply.restricted,
                clause=self.clause, side=self.side, slice=self.slice, family=self.family, parent=self.parent,
                teacher=(reply.teacher if reply else None) or self.teacher, seed=seed, split=split, clause_hash=clause_hash,
            )  # fmt: skip


@dataclass
class Outcome:
    """What a stage gives: the items it kept and, by clause and reason, how many it dropped."""

    kept: list[Item]
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(clause, or the slice of a pool; reason) -> items."""
    replies_dropped: Counter[tuple[str, str]] = field(default_factory=Counter)


def written_for(clause: Clause, turns: tuple[Turn, ...], teacher: str) -> Item:
    """A plain item of a clause."""
    return Item(turns, clause.id, clause.side, f"{clause.side}:{clause.id}", digest(turns), teacher)


def from_pool(slice_name: str, turns: tuple[Turn, ...], answer: str | None, teacher: str) -> Item:
    """A plain item of a benign pool."""
    replies = (Written("answer", answer),) if answer else ()
    return Item(turns, "", "permitted", slice_name, digest(turns), teacher, replies)


def home(item: Item) -> str:
    """Where an item is counted: its clause, or the slice of its pool."""
    return item.clause or item.slice


def key(item: Item) -> Key:
    """What opinions and decisions on an item are filed under."""
    return item.parent, home(item)


def digest(turns: tuple[Turn, ...]) -> str:
    """First 16 hex digits of the SHA-256 of the turns: the id of an example, and of a parent."""
    text = json.dumps([[t.role, t.content] for t in turns], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def counterparts(constitution: Constitution) -> dict[str, Clause]:
    """The clause on the other side of the line, by id: a restricted clause's counterpart, and the other way round."""
    pairs = {c.id: constitution[c.counterpart] for c in constitution.restricted if c.counterpart}
    back: dict[str, Clause] = {}
    for clause in constitution.restricted:
        if clause.counterpart:
            back.setdefault(clause.counterpart, clause)
    return {**back, **pairs}
