"""A constitution becomes labelled examples. `synthesize` is the list of the stages.

Every call to a language model is cached, so a killed run goes on where it stopped, and an edited clause is the only one
written anew. The same seed and the same answers give the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from charter.constitution import Constitution
from charter.errors import DataError
from charter.llm.cache import Usage
from charter.llm.pool import Budget, Progress, quiet
from charter.records import Example, sha256, together, write_examples, write_text
from charter.synthesis.audited import beside, read_audited
from charter.synthesis.augment import Disguises, augmented
from charter.synthesis.crossfit import agreement, crossfit, sift
from charter.synthesis.decisions import Decision, dropped, read_decisions, reviewed
from charter.synthesis.dedupe import dedupe
from charter.synthesis.engine import Engine, LocalEngine
from charter.synthesis.exclude import Excluded, exclude
from charter.synthesis.families import DRAWN, HELD_OUT, TRANSLATED, family
from charter.synthesis.items import Item, Key, Outcome, key
from charter.synthesis.kin import kin
from charter.synthesis.label import label
from charter.synthesis.language import EXAMPLES_ONLY
from charter.synthesis.manifest import Manifest
from charter.synthesis.pools import pools
from charter.synthesis.prompts import prompts
from charter.synthesis.replies import replies
from charter.synthesis.review import Doubt, doubts, write_doubts
from charter.synthesis.split import split
from charter.synthesis.teachers import Expected, Teacher
from charter.synthesis.topics import topics
from charter.synthesis.translate import expected, translations

PACE = frozenset({"limit", "max_cost", "price_in", "price_out"})
"""Options that change how fast and how far a run goes, but nothing in what it writes: they stay out of the manifest."""
MAX_SEED = 2**32 - 2
"""Numpy's generators take 32 bits, and one of them gets the seed plus one."""


@dataclass(frozen=True)
class Options:
    """How much to write, and in which forms."""

    seed: int = 0
    """Drives every draw: topics, disguises, the order of few-shot lists."""
    per_clause: int | None = None
    """Prompts to write for each clause; None: all recorded ones, or the language teacher's own number."""
    per_pool: int | None = None
    """Rows of each benign pool; None: all."""
    replies_per_clause: int | None = None
    """Prompts of each clause that also get replies; None: all recorded ones, or the language teacher's own number."""
    long_replies: bool = True
    """Keep recorded replies at length; without them a run is quicker, and knows less of replies."""
    families: tuple[str, ...] = DRAWN
    """Disguises to draw from; by default all, the translations where the teacher can write them."""
    held_out_families: tuple[str, ...] = HELD_OUT
    """Disguises that only the test split has, to measure what the classifier makes of forms it never saw."""
    augment_rate: float = 0.15
    """Mean number of disguised copies of an item besides the plain one; above 1, every item gets some."""
    stacks: float = 0.1
    """Probability that a disguise is a stack of two."""
    without_pools: tuple[str, ...] | None = None
    """Benign pools to leave out, because the constitution restricts what they hold; None: those known for the shipped ones."""
    max_cost: float | None = None
    """Cap on the cost of the teacher's calls; None: no cap."""
    price_in: float = 0.0
    """Price of a million tokens read by the teacher."""
    price_out: float = 0.0
    """Price of a million tokens written by the teacher."""
    limit: int = 8
    """Calls in flight at once."""

    def __post_init__(self) -> None:
        for name in (*self.families, *self.held_out_families):
            family(name)
        if not 0 <= self.augment_rate <= len(self.families):
            raise DataError(f"augment_rate is {self.augment_rate}; it is a number of copies, from 0 to that of the families drawn from")
        if not 0 <= self.stacks <= 1:
            raise DataError(f"stacks is {self.stacks}; it is a probability, from 0 to 1")
        for field in ("per_clause", "per_pool", "replies_per_clause", "limit"):
            value = getattr(self, field)
            if value is not None and value < (0 if field == "replies_per_clause" else 1):
                raise DataError(f"{field} is {value}; it must be positive")
        for field in ("max_cost", "price_in", "price_out"):
            value = getattr(self, field)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise DataError(f"{field} is {value}; it must be a number that is not negative")
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise DataError(
                f"max_cost is {self.max_cost}, but without a price nothing costs anything; give the teacher's with --price IN OUT"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise DataError(f"seed is {self.seed}; it is a whole number from 0 to {MAX_SEED}")

    def disguises(self, teacher: Teacher) -> Disguises:
        """What the augment stage draws from, with this teacher."""
        more = TRANSLATED if self.families == DRAWN and teacher.rewrites else ()
        return Disguises((*self.families, *more), self.held_out_families, self.augment_rate, self.stacks)

    def answered(self, teacher: Teacher) -> int | None:
        """Prompts of each clause that get replies from this teacher; None: all."""
        return teacher.replies_per_clause if self.replies_per_clause is None else self.replies_per_clause

    def budget(self) -> Budget:
        """A fresh budget for one run."""
        return Budget(self.max_cost, self.price_in, self.price_out)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will take at most, before it starts. What is cached already costs nothing."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost: float


def plan(constitution: Constitution, teacher: Teacher, options: Options) -> Plan:
    """Calls, tokens and cost of a run with an empty cache: an estimate from above."""
    total = Expected()
    for clause in constitution.clauses:
        total += teacher.expected(clause, options.per_clause, options.replies_per_clause)
    calls = expected(total.prompts + len(pools(constitution, options.without_pools, n=options.per_pool)), options.disguises(teacher))
    total += teacher.rewriting(calls)
    return Plan(total.calls, total.tokens_in, total.tokens_out, options.budget().cost(total.tokens_in, total.tokens_out))


async def synthesize(
    constitution: Constitution, teacher: Teacher, options: Options, out: Path, progress: Progress = quiet, engine: Engine | None = None,
    excluded: Excluded | None = None, audited: Sequence[Path] = (),
) -> Manifest:  # fmt: skip
    """Write `out`/examples.parquet, `out`/manifest.json and, for the training that follows, `out`/constitution.yaml.

    Texts of `excluded` never become examples. The least certain items go to `out`/review.jsonl, and what a person decided
    on earlier ones, `out`/reviewed.jsonl, is applied. `audited` are exports of an audit log: what people decided there trains too.

    The engine does the teacher's work; by default this process does. What the run took goes to `out`/run.json, apart from
    the manifest: it differs where the cache does.

    Raises:
        TeacherError: the teacher can't be reached or has nothing for this constitution.
        BudgetExceeded: the next call might pass the cost cap; what was paid for is cached.
        DataError: the files can't be written, a decision in `out`/reviewed.jsonl is malformed, or no clause got anything.
    """
    _check_place(out)
    decided = read_audited(audited, constitution) if audited else None
    decisions, engine = read_decisions(out), engine or LocalEngine(teacher, options.limit)
    manifest = _begun(constitution, teacher, options)
    disguises, seed = options.disguises(teacher), options.seed

    items = await _written(constitution, options, options.answered(teacher), engine, progress, manifest)
    items = _without(excluded, items if options.long_replies else [_brief(item) for item in items], manifest)
    asked, items = items, manifest.note("label", await label(items, constitution, engine, progress))
    agreed, items = items, _as_decided(items, decisions, constitution, manifest)
    items, kinship = kin(items)
    manifest.kin = asdict(kinship)
    said = await translations(items, disguises, seed, engine, progress)
    opinions = crossfit(items, seed)
    manifest.agreement = agreement(asked, agreed, items, opinions, constitution)
    items = manifest.note("scorer", sift(items, opinions))
    items = manifest.note("augment", await augmented(items, constitution, disguises, seed, said, engine))
    items = manifest.note("dedupe", dedupe(items, seed))
    if decided is not None:
        more = manifest.note("audit", beside(decided, items, excluded))
        items = [*items, *more]
    rows = split(items, seed, {c.id: c.hash for c in constitution.clauses}, options.held_out_families)

    manifest.unserved = _unserved(constitution, items, manifest)
    _write(out, constitution, manifest, rows, doubts(items, opinions, decisions), engine.usage)
    return manifest


def _begun(constitution: Constitution, teacher: Teacher, options: Options) -> Manifest:
    about = {"name": constitution.name, "version": constitution.version, "hash": constitution.hash}
    return Manifest(about, teacher.name, options.seed, {k: v for k, v in asdict(options).items() if k not in PACE})


async def _written(
    constitution: Constitution, options: Options, answered: int | None, engine: Engine, progress: Progress, manifest: Manifest
) -> list[Item]:
    """Stages 1 to 4: what the teacher writes, and the pools."""
    subtopics = await topics(constitution, engine, progress)
    manifest.topics = {clause: len(names) for clause, names in subtopics.items()}
    items = manifest.note("prompts", await prompts(constitution, engine, subtopics, options.per_clause, progress))
    items = manifest.note("replies", await replies(items, engine, answered, progress))
    return manifest.note("pools", Outcome([*items, *pools(constitution, options.without_pools, n=options.per_pool)]))


def _brief(item: Item) -> Item:
    """The item without its replies at length."""
    return replace(item, replies=tuple(reply for reply in item.replies if not reply.long))


def _without(excluded: Excluded | None, items: list[Item], manifest: Manifest) -> list[Item]:
    """The items that are not refused."""
    if excluded is None:
        return items
    manifest.excluded = len(excluded)
    return manifest.note("exclude", exclude(items, excluded))


def _as_decided(items: list[Item], decisions: Mapping[Key, Decision], constitution: Constitution, manifest: Manifest) -> list[Item]:
    """The items as a person decided on them in a review."""
    if not decisions:
        return items
    outcome, manifest.reviewed = reviewed(items, decisions, constitution)
    manifest.dropped = dropped({key(item) for item in items}, decisions)
    return manifest.note("review", outcome)


def _unserved(constitution: Constitution, items: Sequence[Item], manifest: Manifest) -> list[str]:
    """The clauses for which nothing is there but their own examples, though a teacher was asked.

    Raises:
        DataError: they are all; says why.
    """
    served = {item.clause for item in items if item.teacher != "constitution"}
    wanted = [clause.id for clause in constitution.clauses if clause.id not in EXAMPLES_ONLY]
    left = [name for name in wanted if name not in served]
    if left == wanted != []:
        reasons = sum((Counter(stage.dropped) for stage in manifest.stages if stage.name not in ("augment", "dedupe")), Counter[str]())
        why = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common(3))
        raise DataError(
            f"the teacher {manifest.teacher} gave nothing usable for any clause ({why or 'it wrote no prompt'}), so there is nothing to "
            "train on and nothing is written; choose another --teacher, or one that does not refuse"
        )
    return left


def _check_place(out: Path) -> None:
    """What is plainly no place for a folder is told before the teacher is asked, not after.

    Raises:
        DataError: a file is in the way, or the rights to write are missing.
    """
    try:
        nearest = next(place for place in (out, *out.absolute().parents) if place.exists())
        fits = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except OSError:
        fits = False
    if not fits:
        raise DataError(f"{out}: the examples can't be written there; choose another folder, or mend its rights")


def _write(
    out: Path, constitution: Constitution, manifest: Manifest, rows: Iterable[Example], listed: Sequence[Doubt], usage: Usage
) -> None:
    manifest.to_review = len(listed)
    try:
        with together(out, last="manifest.json") as aside:
            write_examples(aside / "examples.parquet", manifest.counting(rows))
            manifest.examples = sha256(aside / "examples.parquet")
            write_text(aside / "constitution.yaml", constitution.source)
            write_doubts(aside, listed)
            write_text(aside / "run.json", json.dumps({"schema": 1, "teacher_calls": asdict(usage)}, indent=1) + "\n")
            manifest.write(aside / "manifest.json")
    except OSError as error:
        raise DataError(f"{out}: the examples can't be written ({error.strerror or error}); make room or choose another folder") from error
