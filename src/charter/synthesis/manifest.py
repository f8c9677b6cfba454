"""What a synthesis run made, dropped and kept, stage by stage and clause by clause. Same seed, same bytes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charter.records import Example, write_text
from charter.synthesis.items import Item, Outcome, home

SCHEMA = 1


@dataclass
class Stage:
    """The yield of one stage, in items."""

    name: str
    made: int
    kept: int
    dropped: dict[str, int]
    """Reason -> items."""
    replies: dict[str, int]
    """Kind -> replies that the kept items have."""
    replies_dropped: dict[str, int]
    clauses: dict[str, dict[str, int]]
    """Clause, or slice of a pool -> made, kept."""


@dataclass
class Manifest:
    """The record of a run; `manifest.json` beside the examples."""

    constitution: dict[str, str]
    """Name, version and hash."""
    teacher: str
    seed: int
    options: dict[str, Any]
    topics: dict[str, int] = field(default_factory=dict)
    """Subtopics by clause."""
    unserved: list[str] = field(default_factory=list)
    """Clauses that have nothing but their own examples, though a teacher was asked."""
    excluded: int = 0
    """Different texts that were refused, such as those of public benchmarks."""
    agreement: dict[str, dict[str, float | int | None]] = field(default_factory=dict)
    """By clause, or slice of a pool: items, and the shares whose label the teacher and a scorer that never saw them agree with."""
    kin: dict[str, int] = field(default_factory=dict)
    """How many items have near-twins, with which they share a split."""
    reviewed: dict[str, int] = field(default_factory=dict)
    """A person's decisions that were applied, by kind."""
    dropped: list[list[str]] = field(default_factory=list)
    """Items (parent, and clause or slice) that a person dropped: what is left of them once their rows are gone."""
    to_review: int = 0
    """Items in review.jsonl."""
    stages: list[Stage] = field(default_factory=list)
    examples: str = ""
    """SHA-256 of examples.parquet."""
    rows: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by split, family, slice, teacher, and by what they are labelled."""

    def note(self, name: str, outcome: Outcome) -> list[Item]:
        """Enter a stage; returns the items it kept."""
        kept, dropped = Counter(home(i) for i in outcome.kept), outcome.dropped
        lost: Counter[str] = Counter()
        for (place, _), n in dropped.items():
            lost[place] += n
        clauses = {p: {"made": kept[p] + lost[p], "kept": kept[p]} for p in sorted({*kept, *lost})}
        replies: Counter[str] = Counter(r.kind for i in outcome.kept for r in i.replies)
        made, survived = sum(kept.values()) + sum(lost.values()), sum(kept.values())
        by_reply: dict[str, int] = dict(sorted(replies.items()))
        self.stages.append(Stage(name, made, survived, _by_reason(dropped), by_reply, _by_reason(outcome.replies_dropped), clauses))
        return outcome.kept

    def counting(self, rows: Iterable[Example]) -> Iterator[Example]:
        """Pass rows on and count them."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            self.rows += 1
            view, label = ("prompt", row.prompt_restricted) if row.reply_restricted is None else ("exchange", row.reply_restricted)
            counts["split"][row.split] += 1
            counts["family"][row.family] += 1
            counts["slice"][row.slice] += 1
            counts["teacher"][row.teacher] += 1
            counts["label"][f"{view} {'restricted' if label else 'harmless'}"] += 1
            yield row
        self.counts = {key: dict(sorted(counter.items())) for key, counter in sorted(counts.items())}

    def write(self, path: Path) -> None:
        value = {"schema": SCHEMA, **vars(self), "stages": [vars(stage) for stage in self.stages]}
        write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    @property
    def warning(self) -> str:
        """A sentence about what is missing; empty where nothing is."""
        names = ", ".join(self.unserved)
        return names and (
            f"nothing usable came for {len(self.unserved)} of {len(self.topics)} clauses, which have only their own examples: {names}; "
            "see what was dropped and why, and choose another --teacher or rewrite them"
        )

    def lines(self) -> list[str]:
        """A line a stage, for people."""
        out = []
        for stage in self.stages:
            reasons = ", ".join(f"{n} {why}" for why, n in stage.dropped.items())
            lost = ", ".join(f"{n} replies: {why}" for why, n in stage.replies_dropped.items())
            notes = "; ".join(part for part in (reasons, lost) if part)
            out.append(f"{stage.name}: {stage.kept:,} of {stage.made:,} kept" + (f" ({notes})" if notes else ""))
        if self.to_review:
            out.append(f"review: the {self.to_review} least certain items are listed; go through them with `charter review`")
        return [*out, f"rows: {self.rows:,} (" + ", ".join(f"{k} {n:,}" for k, n in self.counts.get("split", {}).items()) + ")"]


def _by_reason(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    out: Counter[str] = Counter()
    for (_, why), n in counts.items():
        out[why] += n
    return dict(sorted(out.items()))
