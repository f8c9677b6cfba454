"""The disguises that only a teacher can put on: translations. What it gives that is none is told apart later, and counted.

They are asked for before the cross-fit drops a few items, not after: else a whole cluster would wait for one core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from charter.llm.pool import Progress, quiet
from charter.synthesis.augment import Disguises, Said, drawn
from charter.synthesis.engine import Engine
from charter.synthesis.families import family
from charter.synthesis.families.translation import translated
from charter.synthesis.items import Item, key
from charter.synthesis.language import EXAMPLES_ONLY
from charter.synthesis.teachers import Teacher


async def translations(items: Sequence[Item], disguises: Disguises, seed: int, engine: Engine, progress: Progress = quiet) -> Said:
    """The translations that the items will need for the disguises drawn for them.

    Raises:
        BudgetExceeded: the cost cap was reached.
        TeacherError: the teacher can't be reached.
    """
    asked = [(item, name) for item, name in drawn(items, seed, disguises) if family(name).instruction and item.clause not in EXAMPLES_ONLY]
    tasks = [partial(_rewrite, text=item.prompt, instruction=family(name).instruction) for item, name in asked]
    found = await engine.run(tasks, progress, "translations") if tasks else []
    return {(key(item), name): text for (item, name), text in zip(asked, found, strict=True)}


def expected(items: int, disguises: Disguises) -> int:
    """How many translations to expect of a number of items, with room for chance: an estimate from above."""
    names = disguises.choices().names
    single = sum(bool(family(name).instruction) for name in names)
    mean = items * disguises.rate * single / max(1, len(disguises.seen().choices().names))
    return math.ceil(mean + 4 * math.sqrt(mean))


async def _rewrite(teacher: Teacher, text: str, instruction: str) -> str | None:
    """The teacher's rewriting where it is one."""
    rewritten = await teacher.rewrite(text, instruction)
    return rewritten if translated(text, rewritten, instruction) else None
