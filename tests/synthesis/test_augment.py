"""The disguises are drawn alike for both sides, depend on nothing but seed and parent, and never leak what is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import anyio
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, rankdata

from charter.constitution import Constitution
from charter.llm.cache import Usage
from charter.llm.pool import quiet
from charter.records import Turn
from charter.synthesis.augment import LONGEST, Disguises, augmented, copy, drawn, turning
from charter.synthesis.engine import LocalEngine
from charter.synthesis.families import DRAWN, FAMILIES, HELD_OUT, TRANSLATED, held
from charter.synthesis.items import TURNING, Item, Outcome, digest
from charter.synthesis.pools import pools
from charter.synthesis.prompts import prompts
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.replies import replies
from charter.synthesis.split import split, split_of
from charter.synthesis.translate import expected, translations


@pytest.fixture(scope="module")
def items(constitution: Constitution, recordings: Path) -> list[Item]:
    async def run() -> Outcome:
        engine = LocalEngine(RecordedTeacher(constitution, recordings), 4)
        written = await prompts(constitution, engine, {c.id: [] for c in constitution.clauses}, None, quiet)
        return await replies(written.kept, engine, None, quiet)

    return [*anyio.run(run).kept, *pools(constitution)]


@pytest.fixture(scope="module")
def synthetic() -> list[Item]:
    """5,000 items, half of them restricted, of all lengths alike on both sides."""
    out = []
    for n in range(5_000):
        turns = (Turn("user", f"Request {n} about {'many ' * (n % 7)}things"),)
        out.append(Item(turns, "c", "restricted" if n % 2 else "permitted", "s", digest(turns), "me"))
    return out


def copies(items: Iterable[Item], seed: int, disguises: Disguises) -> list[Item]:
    return [copy(item, name, seed) for item, name in drawn(items, seed, disguises)]


def independence(items: Sequence[Item]) -> float:
    """p of the hypothesis that family and side have nothing to do with each other; stacks count as one family."""
    counts = Counter(("stack" if "+" in item.family else item.family, item.side) for item in items)
    families = sorted({family for family, _ in counts})
    return float(chi2_contingency([[counts[f, side] for side in ("restricted", "permitted")] for f in families]).pvalue)


def auroc_of_the_family(items: Sequence[Item], folds: int = 5) -> float:
    """AUROC for "restricted" of a score that is the rate of restricted ones in the family, told from the other folds."""
    side = np.array([item.side == "restricted" for item in items])
    family = np.array([item.family for item in items])
    fold = np.array([Random(item.parent).randrange(folds) for item in items])
    score = np.full(len(items), side.mean())
    for k in range(folds):
        for name in set(family[fold == k]):
            others = side[(family == name) & (fold != k)]
            if len(others):
                score[(family == name) & (fold == k)] = (others.sum() + side.mean()) / (len(others) + 1)
    ranks, n = rankdata(score), int(side.sum())
    return float((ranks[side].sum() - n * (n + 1) / 2) / (n * (len(side) - n)))


@pytest.mark.parametrize("rate", [0.25, 1.0, 2.6])
def test_the_family_alone_predicts_the_label_no_better_than_chance(synthetic: list[Item], rate: float) -> None:
    whole = [*synthetic, *copies(synthetic, 0, Disguises(rate=rate))]
    assert independence(whole) > 0.01
    assert 0.45 <= auroc_of_the_family(whole) <= 0.55


def test_nor_does_it_on_items_as_they_are_written(items: list[Item]) -> None:
    assert independence([*items, *copies(items, 0, Disguises(rate=0.25))]) > 0.01


@pytest.mark.parametrize("side", ["restricted", "permitted"])
def test_both_checks_would_notice_if_one_side_alone_were_disguised(synthetic: list[Item], side: str) -> None:
    one = [item for item in synthetic if item.side == side]
    whole = [*synthetic, *copies(one, 0, Disguises(rate=0.5))]
    assert independence(whole) < 1e-6
    assert auroc_of_the_family(whole) > 0.55


def test_they_would_notice_a_family_that_one_side_gets_more_often(synthetic: list[Item]) -> None:
    made = [c for c in copies(synthetic, 0, Disguises(rate=1.0, stacks=0)) if c.side == "restricted" or Random(c.parent).random() < 0.7]
    assert independence([*synthetic, *made]) < 1e-3


@pytest.mark.parametrize(("rate", "stacks"), [(0.25, 0.0), (0.25, 0.3), (1.0, 0.1), (3.4, 0.1)])
def test_the_rate_is_the_mean_number_of_copies_on_either_side(synthetic: list[Item], rate: float, stacks: float) -> None:
    made = copies(synthetic, 0, Disguises(rate=rate, stacks=stacks))
    for side in ("restricted", "permitted"):
        assert sum(c.side == side for c in made) / 2_500 == pytest.approx(rate, abs=0.04)
    counts = Counter(c.parent for c in made)
    assert set(counts.values()) <= {int(rate), int(rate) + (rate % 1 > 0)} - {0}
    assert sum("+" in c.family for c in made) / len(made) == pytest.approx(stacks, abs=0.04)


def test_single_families_are_drawn_evenly(synthetic: list[Item]) -> None:
    made = copies(synthetic, 0, Disguises(rate=2.0, stacks=0.1))
    train = Counter(c.family for c in made if split_of(c.group) == "train" and "+" not in c.family)
    assert set(train) == set(DRAWN) - set(HELD_OUT)
    assert max(train.values()) < 1.6 * min(train.values())


@example(names=["base64", "json", "hex"], unseen=["json+hex"], rate=1.0)
@given(
    st.lists(st.sampled_from([*DRAWN, "plain", "json+hex"]), unique=True),
    st.lists(st.sampled_from([*DRAWN, "json+hex"]), max_size=9),
    st.floats(0, 6),
)
def test_held_out_families_come_in_test_only_and_no_family_comes_twice(names: list[str], unseen: list[str], rate: float) -> None:
    disguises = Disguises(tuple(names), tuple(unseen), rate, stacks=0.4)
    some = [Item((Turn("user", f"Request {n}"),), "c", "permitted", "s", f"parent {n}", "me") for n in range(12)]
    pairs = list(drawn(some, 0, disguises))
    for item, name in pairs:
        assert {name, *name.split("+")} & set(names)
        assert split_of(item.group) == "test" or not held(name, unseen)
    assert len({(item.parent, name) for item, name in pairs}) == len(pairs)
    rows = list(split([copy(item, name, 0) for item, name in pairs], 0, {}, unseen))
    assert [row.family for row in rows] == [name for _, name in pairs]


def test_all_held_out_families_do_come(synthetic: list[Item]) -> None:
    made = copies(synthetic, 0, Disguises(rate=3.0, stacks=0.3))
    assert {c.family for c in made if "+" not in c.family} == set(DRAWN)
    assert any("+" in c.family and held(c.family, HELD_OUT) for c in made)


def test_near_twins_share_what_the_split_goes_by(synthetic: list[Item]) -> None:
    head = next(item.parent for item in synthetic if split_of(item.parent) == "train")
    kin = [replace(item, kin=head) for item in synthetic[:300]]
    assert not any(held(name, HELD_OUT) for _, name in drawn(kin, 0, Disguises(rate=3.0)))


def test_a_copy_keeps_everything_but_the_last_user_turn_and_the_family(items: list[Item]) -> None:
    by_parent = {item.parent: item for item in items}
    for made in copies(items, 0, Disguises(rate=1.0)):
        original = by_parent[made.parent]
        before = len(original.turns) - 1
        assert made == replace(original, turns=(*original.turns[:before], *made.turns[before:]), family=made.family)
        assert len(original.prompt) <= LONGEST
        assert made.turns[-1].role == "user"
        assert len(made.turns) == len(original.turns) or FAMILIES[made.family.split("+")[0]].across_turns


def test_an_item_gets_the_same_disguises_in_any_company_and_others_with_another_seed(items: list[Item]) -> None:
    disguises = Disguises(rate=2.0)
    whole = copies(items, 0, disguises)
    alone = copies(items[5:6], 0, disguises)
    assert len(alone) == 2
    assert alone == [c for c in whole if c.parent == items[5].parent]
    assert copies(items, 1, disguises) != whole


def test_what_is_too_long_stays_as_it_is() -> None:
    turns = (Turn("user", "a" * (LONGEST + 1)),)
    assert list(drawn([Item(turns, "c", "permitted", "s", "p", "me")], 0, Disguises(rate=5.0))) == []


@dataclass
class Translator(RecordedTeacher):
    """Translates by a script, and keeps what it was asked."""

    answers: dict[str, str | None]
    asked: list[tuple[str, str]] = field(default_factory=list)
    name = "translator"
    rewrites = True
    usage = Usage()

    async def rewrite(self, text: str, instruction: str) -> str | None:
        self.asked.append((text, instruction))
        return self.answers[text.split()[-1]]


GERMAN = "Wie lange muss das Brot im Ofen bleiben, und wann ist es fertig gebacken?"


def rewriting(
    synthetic: list[Item], constitution: Constitution, families: tuple[str, ...], clause: str = "c"
) -> tuple[Outcome, Translator, list[Item]]:
    """The stage with a teacher that translates well, not at all, into nothing, by an echo, and into another language."""
    answers = {
        "good": GERMAN,
        "none": None,
        "empty": " ",
        "echo": "How long does bread stay in the oven echo",
        "english": "This is plainly English text, as anybody can see.",
    }
    some = []
    for word in answers:
        turns = (Turn("user", f"How long does bread stay in the oven {word}"),)
        some.append(Item(turns, clause, "permitted", "s", word, "me"))
    teacher = Translator(answers)
    return stage(some, constitution, Disguises(families, (), 1.0, 0.0), LocalEngine(teacher, 2)), teacher, some


def stage(items: list[Item], constitution: Constitution, disguises: Disguises, engine: LocalEngine) -> Outcome:
    """The translations, and the copies with them, as a run makes them."""

    async def run() -> Outcome:
        said = await translations(items, disguises, 0, engine)
        return await augmented(items, constitution, disguises, 0, said, engine)

    return anyio.run(run)


def test_the_teacher_translates_and_what_is_no_translation_is_dropped_and_counted(
    synthetic: list[Item], constitution: Constitution
) -> None:
    outcome, teacher, some = rewriting(synthetic, constitution, ("translation:de",))
    assert outcome.kept == [*some, some[0].with_prompt(GERMAN, "translation:de")]
    assert outcome.dropped == {("c", "the teacher can't translate"): 4}
    assert [text for text, _ in teacher.asked] == [item.prompt for item in some]
    assert all("German" in instruction for _, instruction in teacher.asked)


def test_a_stack_disguises_the_translation(synthetic: list[Item], constitution: Constitution) -> None:
    outcome, _, some = rewriting(synthetic, constitution, ("translation:de+reversal",))
    assert len(outcome.kept) == len(some) + 1
    assert GERMAN[::-1] in outcome.kept[-1].prompt


def test_no_teacher_rewrites_what_must_live_on_its_examples(synthetic: list[Item], constitution: Constitution) -> None:
    outcome, teacher, some = rewriting(synthetic, constitution, ("translation:de",), clause="child-safety")
    assert (outcome.kept, teacher.asked) == (some, [])
    assert sum(outcome.dropped.values()) == len(some)


def test_a_recorded_teacher_translates_nothing_and_says_so(items: list[Item], constitution: Constitution, recordings: Path) -> None:
    engine = LocalEngine(RecordedTeacher(constitution, recordings), 2)
    outcome = stage(items[:40], constitution, Disguises(("translation:fr",), (), 1.0), engine)
    assert {item.family for item in outcome.kept} <= {"plain", TURNING}
    assert sum(outcome.dropped.values()) == sum(len(item.prompt) <= LONGEST for item in items[:40])


@pytest.mark.parametrize("families", [DRAWN, (*DRAWN, *TRANSLATED), ("translation:de", "hex", "translation:zh+hex")])
def test_the_plan_of_translations_is_never_less_than_what_is_drawn(synthetic: list[Item], families: tuple[str, ...]) -> None:
    for rate in (0.02, 0.15, 1.0, 3.0):
        disguises = Disguises(families, HELD_OUT, min(rate, len(families)))
        asked = sum("translation" in name for _, name in drawn(synthetic, 0, disguises))
        planned = expected(len(synthetic), disguises)
        assert asked <= planned <= 2 * asked + 60 * bool(asked)


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
