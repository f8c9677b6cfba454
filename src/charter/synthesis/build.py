"""A constitution becomes labelled examples. `synthesize` is the list of the eight stages.

Every call to a language model is cached, so a killed run goes on where it stopped, and an edited clause is the only one
written anew. The same seed and the same answers give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from charter.constitution import Constitution
from charter.errors import DataError
from charter.llm.pool import Budget, Progress, quiet
from charter.records import Example, write_examples, write_text
from charter.synthesis.augment import augmented
from charter.synthesis.dedupe import dedupe
from charter.synthesis.families import FAMILIES
from charter.synthesis.items import Outcome
from charter.synthesis.label import label
from charter.synthesis.manifest import Manifest
from charter.synthesis.pools import pools
from charter.synthesis.prompts import prompts
from charter.synthesis.replies import replies
from charter.synthesis.split import split
from charter.synthesis.teachers import Expected, Teacher
from charter.synthesis.topics import topics


@dataclass(frozen=True)
class Options:
    """How much to write, and in which forms."""

    seed: int = 0
    """Drives every draw: topics, disguises, the order of few-shot lists."""
    per_clause: int | None = None
    """Prompts to write for each clause; None: all recorded ones, or the language teacher's own number."""
    replies_per_clause: int | None = None
    """Prompts of each clause that also get replies; None: all recorded ones, or the language teacher's own number."""
    families: tuple[str, ...] = tuple(FAMILIES)
    """Disguises to draw from."""
    held_out_families: tuple[str, ...] = ("leetspeak", "prefix-injection")
    """Disguises that only the test split has, to measure what the classifier makes of forms it never saw."""
    augment_rate: float = 0.15
    """Probability that an item gets a disguised copy besides the plain one."""
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
            if name not in FAMILIES:
                raise DataError(f"there is no family {name!r}; the families are {', '.join(FAMILIES)}")
        if not 0 <= self.augment_rate <= 1:
            raise DataError(f"augment_rate is {self.augment_rate}; it is a probability, from 0 to 1")
        for field in ("per_clause", "replies_per_clause", "limit"):
            value = getattr(self, field)
            if value is not None and value < (0 if field == "replies_per_clause" else 1):
                raise DataError(f"{field} is {value}; it must be positive")
        for field in ("max_cost", "price_in", "price_out"):
            value = getattr(self, field)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise DataError(f"{field} is {value}; it must be a number that is not negative")

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
    return Plan(total.calls, total.tokens_in, total.tokens_out, options.budget().cost(total.tokens_in, total.tokens_out))


async def synthesize(constitution: Constitution, teacher: Teacher, options: Options, out: Path, progress: Progress = quiet) -> Manifest:
    """Write `out`/examples.parquet, `out`/manifest.json and, for the training that follows, `out`/constitution.yaml.

    Raises:
        TeacherError: the teacher can't be reached or has nothing for this constitution.
        BudgetExceeded: the next call might pass the cost cap; what was paid for is cached.
        DataError: the files can't be written.
    """
    about = {"name": constitution.name, "version": constitution.version, "hash": constitution.hash}
    manifest = Manifest(about, teacher.name, options.seed, asdict(options))
    seed, limit = options.seed, options.limit

    subtopics = await topics(constitution, teacher, limit, progress)
    manifest.topics = {clause: len(names) for clause, names in subtopics.items()}
    items = manifest.note("prompts", await prompts(constitution, teacher, subtopics, options.per_clause, limit, progress))
    items = manifest.note("replies", await replies(items, teacher, options.replies_per_clause, limit, progress))
    items = manifest.note("pools", Outcome([*items, *pools(constitution, options.without_pools)]))
    items = manifest.note("label", await label(items, constitution, teacher, limit, progress))
    items = manifest.note(
        "augment", augmented(items, constitution, seed, options.families, options.held_out_families, options.augment_rate)
    )
    items = manifest.note("dedupe", dedupe(items, seed))
    rows = split(items, seed, {c.id: c.hash for c in constitution.clauses}, options.held_out_families)

    _write(out, constitution, manifest, rows)
    return manifest


def _write(out: Path, constitution: Constitution, manifest: Manifest, rows: Iterable[Example]) -> None:
    try:
        write_text(out / "constitution.yaml", constitution.source)
        write_examples(out / "examples.parquet", manifest.counting(rows))
        manifest.write(out / "manifest.json")
    except OSError as error:
        raise DataError(f"{out}: the examples can't be written ({error.strerror or error}); make room or choose another folder") from error
