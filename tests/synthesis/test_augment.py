from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from scipy.stats import chi2_contingency

from charter.constitution import Constitution
from charter.llm.pool import quiet
from charter.synthesis.augment import LONGEST, augment, turning
from charter.synthesis.families import FAMILIES
from charter.synthesis.items import TURNING, Item, Outcome
from charter.synthesis.pools import pools
from charter.synthesis.prompts import prompts
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.replies import replies
from charter.synthesis.split import split_of

HELD_OUT = ("leetspeak", "prefix-injection")


@pytest.fixture(scope="module")
def items(constitution: Constitution, recordings: Path) -> list[Item]:
    async def run() -> Outcome:
        teacher = RecordedTeacher(constitution, recordings)
        written = await prompts(constitution, teacher, {c.id: [] for c in constitution.clauses}, None, 4, quiet)
        return await replies(written.kept, teacher, None, 4, quiet)

    return [*anyio.run(run).kept, *pools(constitution)]


def independence(items: Sequence[Item]) -> float:
    """p of the hypothesis that family and label have nothing to do with each other."""
    counts = Counter((item.family, item.side) for item in items)
    families = sorted({family for family, _ in counts})
    return float(chi2_contingency([[counts[f, side] for side in ("restricted", "permitted")] for f in families]).pvalue)


def test_the_family_alone_predicts_the_label_no_better_than_chance(items: list[Item]) -> None:
    assert independence([*items, *augment(items, 0, tuple(FAMILIES), HELD_OUT, 0.25)]) > 0.01


def test_that_check_would_notice_if_one_side_were_disguised_more_often(items: list[Item]) -> None:
    restricted = [item for item in items if item.side == "restricted"]
    assert independence([*items, *augment(restricted, 0, tuple(FAMILIES), HELD_OUT, 0.25)]) < 1e-6


def test_a_quarter_of_the_items_gets_one_copy_with_a_family_drawn_uniformly(items: list[Item]) -> None:
    copies = augment(items, 0, tuple(FAMILIES), HELD_OUT, 0.25)
    short = sum(len(item.prompt) <= LONGEST for item in items)
    assert len(copies) / short == pytest.approx(0.25, abs=0.03)
    train = Counter(copy.family for copy in copies if split_of(copy.parent) == "train")
    assert set(train) == FAMILIES.keys() - {"plain", *HELD_OUT}
    assert max(train.values()) < 1.6 * min(train.values())


def test_held_out_families_come_in_test_only_and_do_come(items: list[Item]) -> None:
    places = {(c.family, split_of(c.parent)) for c in augment(items, 0, tuple(FAMILIES), HELD_OUT, 1.0)}
    assert {place for place in places if place[0] in HELD_OUT} == {(name, "test") for name in HELD_OUT}


def test_a_copy_keeps_everything_but_the_last_user_turn_and_the_family(items: list[Item]) -> None:
    by_parent = {item.parent: item for item in items}
    for copy in augment(items, 0, tuple(FAMILIES), HELD_OUT, 1.0):
        original = by_parent[copy.parent]
        assert copy == replace(original, turns=(*original.turns[:-1], copy.turns[-1]), family=copy.family)
        assert len(original.prompt) <= LONGEST


def test_an_item_gets_the_same_disguise_in_any_company_and_another_with_another_seed(items: list[Item]) -> None:
    whole = {copy.parent: copy for copy in augment(items, 0, tuple(FAMILIES), HELD_OUT, 1.0)}
    alone = augment(items[5:6], 0, tuple(FAMILIES), HELD_OUT, 1.0)
    assert alone == [whole[items[5].parent]]
    assert augment(items, 1, tuple(FAMILIES), HELD_OUT, 1.0) != list(whole.values())


def test_replies_turn_from_a_permitted_answer_into_a_compliance_or_into_another_answer(
    items: list[Item], constitution: Constitution
) -> None:
    turned = turning(items, constitution, 0)
    restricted = [item for item in turned if item.side == "restricted"]
    harmless = [item for item in turned if item.side == "permitted"]
    assert len(restricted) == len(harmless) == 8
    for item in turned:
        assert (item.family, item.prompt_restricted, len(item.replies)) == (TURNING, False, 1)
        assert item.replies[0].text.startswith("The answer to")
    assert all(item.clause == "cellar" and "The compliance to" in item.replies[0].text for item in restricted)
    assert all(item.clause == "wine" and "compliance" not in item.replies[0].text for item in harmless)
    assert [item.turns for item in restricted] == [item.turns for item in harmless]


def test_no_reply_text_crosses_the_splits_by_turning(items: list[Item], constitution: Constitution) -> None:
    home = {reply.text: split_of(item.parent) for item in items for reply in item.replies}
    for item in turning(items, constitution, 3):
        text = item.replies[0].text
        ends = {place for whole, place in home.items() if text.endswith(whole)}
        assert ends == {split_of(item.parent)}
