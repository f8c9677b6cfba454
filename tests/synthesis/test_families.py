from __future__ import annotations

import re
import unicodedata
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from charter.errors import DataError
from charter.records import Turn
from charter.synthesis.families import DRAWN, FAMILIES, FOLLOWS, HELD_OUT, LEADS, TRANSLATED, Family, family, held, stack
from charter.synthesis.families.splitting import multi_turn
from charter.synthesis.families.surface import TAGS, ZERO_WIDTH
from charter.synthesis.families.templates import SHOTS, VOICES

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)
PURE = [FAMILIES[name] for name in ("plain", *DRAWN)]
INVERTIBLE = [family for family in PURE if family.inverse]
STACKS = [
    stack(first, second) for first in PURE for second in PURE if first.kind in LEADS and second.kind in FOLLOWS and not first.across_turns
]
SENTENCE = "Which boats sail to the islands on Tuesday?"


def ours(original: str, name: str) -> str:
    """The text without the characters that a family itself uses: it could not tell them from its own."""
    if "homoglyph" in name:
        original = "".join(c for c in original if not 0x400 <= ord(c) < 0x500)
    if "zero-width" in name:
        original = "".join(c for c in original if c not in ZERO_WIDTH)
    return "".join(c for c in original if not TAGS <= ord(c) < TAGS + 128) if "tags" in name else original


@given(text, st.integers(), st.sampled_from(INVERTIBLE))
def test_the_inverse_gives_the_text_back(original: str, seed: int, chosen: Family) -> None:
    assert chosen.inverse is not None
    original = ours(original, chosen.name)
    disguised = chosen.apply(original, Random(seed))
    assert isinstance(disguised, str)
    back = chosen.inverse(disguised)
    assert back.lower() == original.lower() if chosen.folds_case else back == original


@given(text, st.integers(), st.sampled_from([s for s in STACKS if s.inverse]))
def test_a_stack_of_two_that_lose_nothing_loses_nothing(original: str, seed: int, chosen: Family) -> None:
    assert chosen.inverse is not None
    original = ours(original, chosen.name)
    disguised = chosen.apply(original, Random(seed))
    assert isinstance(disguised, str)
    assert chosen.inverse(disguised) == original


@given(text, st.sampled_from(INVERTIBLE))
def test_an_inverse_takes_any_text(whatever: str, chosen: Family) -> None:
    assert chosen.inverse is not None
    assert isinstance(chosen.inverse(whatever), str)


@given(text, st.integers(), st.sampled_from([*PURE, *STACKS]))
def test_a_family_depends_on_the_text_and_the_generator_alone(original: str, seed: int, chosen: Family) -> None:
    assert chosen.apply(original, Random(seed)) == chosen.apply(original, Random(seed))


@given(text, st.integers(), st.sampled_from(PURE))
def test_several_turns_begin_and_end_with_the_user_and_hold_the_whole_text(original: str, seed: int, chosen: Family) -> None:
    before = (Turn("system", "Be brief."), Turn("user", "Hello."), Turn("assistant", "Hello!"))
    turns = chosen.disguise((*before, Turn("user", original)), Random(seed))
    assert turns[:3] == before
    assert [turn.role for turn in turns[3:]] == [("user", "assistant")[i % 2] for i in range(len(turns) - 3)]
    assert turns[-1].role == "user"
    assert (len(turns) == 4) is not chosen.across_turns
    if chosen.across_turns:
        assert original in "".join(turn.content for turn in turns[5:-2] if turn.role == "user")


def test_there_are_at_least_28_families_of_every_kind_each_with_a_name_and_a_description_of_its_own() -> None:
    assert len(FAMILIES) >= 28
    assert {f.kind for f in FAMILIES.values()} == {"plain", "encoding", "surface", "style", "template", "structure", "translation"}
    assert len({f.description for f in FAMILIES.values()}) == len(FAMILIES)
    assert all(name == f.name and "+" not in name and "\n" not in f.description for name, f in FAMILIES.items())
    assert {*DRAWN, *TRANSLATED, "plain"} == FAMILIES.keys()


def test_the_held_out_families_are_drawn_ones_of_every_kind_and_leave_most_of_each() -> None:
    kinds = {FAMILIES[name].kind for name in HELD_OUT}
    assert kinds == {FAMILIES[name].kind for name in DRAWN}
    for kind in kinds:
        of_kind = [name for name in DRAWN if FAMILIES[name].kind == kind]
        assert len(set(of_kind) & set(HELD_OUT)) < len(of_kind) / 2


@pytest.mark.parametrize("name", DRAWN)
def test_every_disguise_changes_an_ordinary_sentence_in_several_ways(name: str) -> None:
    drawn = {FAMILIES[name].apply(SENTENCE, Random(seed)) for seed in range(40)}
    assert SENTENCE not in drawn
    assert len(drawn) > 1 or name == "spacing"


@pytest.mark.parametrize("name", [*(name for name in DRAWN if FAMILIES[name].kind == "template"), "json", "code"])
def test_templates_are_the_same_around_any_text(name: str) -> None:
    """What a template says can't depend on what is asked, so it can't carry the label."""
    for seed in range(20):
        one, other = (str(FAMILIES[name].apply(word * 12, Random(seed))) for word in ("a", "b"))
        assert one.replace("a" * 12, "b" * 12) == other


def test_shots_carry_no_label_and_no_voice_of_another() -> None:
    words = {word for shot in SHOTS for part in shot for word in re.findall(r"[a-z]+", part.lower())}
    assert not words & {"harmful", "harmless", "safe", "unsafe", "restricted", "permitted", "allowed", "sorry", "refuse"}
    assert all(f"{asks}:" not in q and f"{answers}:" not in a for asks, answers in VOICES for q, a in SHOTS)


def test_few_shots_are_few_and_many_are_many() -> None:
    for name, low, high in (("few-shot", 2, 4), ("many-shot", 12, 18)):
        counts = {sum(q in str(FAMILIES[name].apply("x", Random(seed))) for q, _ in SHOTS) for seed in range(60)}
        assert (min(counts), max(counts)) == (low, high)


def test_homoglyphs_look_the_same_and_are_other_letters() -> None:
    disguised = str(FAMILIES["homoglyph"].apply("a piece of cake" * 5, Random(0)))
    changed = [c for c in disguised if ord(c) > 127]
    assert len(changed) > 10
    assert all(unicodedata.name(c).startswith("CYRILLIC") for c in changed)


@given(st.text("abcdefghijklmnopqrstuvwxyz ?!", min_size=1, max_size=80), st.integers())
def test_invisible_characters_are_invisible(original: str, seed: int) -> None:
    for name in ("zero-width", "tags"):
        disguised = str(FAMILIES[name].apply(original, Random(seed)))
        hidden = [c for c in disguised if not c.isascii()]
        assert all(unicodedata.category(c) == "Cf" for c in hidden)
        assert len(hidden) >= (1 if name == "zero-width" else len(original))


def test_leetspeak_and_casing_keep_the_length_and_casing_keeps_the_letters() -> None:
    original = "The quick brown fox eats oats."
    assert len(FAMILIES["leetspeak"].apply(original, Random(0))) == len(original)
    assert str(FAMILIES["casing"].apply(original, Random(0))).lower() == original.lower()


@given(st.text(st.characters(categories=["Ll", "Lu", "Zs"], max_codepoint=0x17F), min_size=4, max_size=60), st.integers())
def test_a_slip_changes_every_text_with_a_word_and_no_more_than_its_words(original: str, seed: int) -> None:
    assume(re.search(r"[^\W\d_]{4,}", original))
    slipped = str(FAMILIES["typos"].apply(original, Random(seed)))
    assert slipped != original
    assert len(slipped.split()) == len(original.split())


@pytest.mark.parametrize(
    ("name", "original", "part"),
    [
        ("past-tense", "How do I bake bread?", "How did people bake bread?"),
        ("past-tense", "Tell me how to brew tea.", "tell me how people used to brew tea."),
        ("past-tense", "Please write me a poem on tea.", "how did people write a poem on tea."),
        ("past-tense", "My bread is flat and I can smell it.", "My bread was flat and I could smell it."),
        ("third-person", "I'm late, can my brother fetch me?", "they're late, can their brother fetch them?"),
        ("formal", "hey, I can't find it", "good day, I cannot find it"),
        ("slang", "Are you going to bake, my friend?", "r u gonna bake my bro"),
    ],
)
def test_styles_follow_their_rules(name: str, original: str, part: str) -> None:
    assert part.lower() in str(FAMILIES[name].apply(original, Random(3))).lower()


def test_names_parse_to_families_and_stacks_left_to_right() -> None:
    assert family("base64") is FAMILIES["base64"]
    both = family("roleplay:developer-mode+base64")
    assert [part.name for part in both.parts] == ["roleplay:developer-mode", "base64"]
    disguised = both.apply("What is tea?", Random(4))
    undone = FAMILIES["base64"].inverse
    assert undone is not None
    assert "What is tea?" in undone(str(disguised)) != "What is tea?"


def test_a_stack_over_turns_disguises_every_user_turn_and_no_other() -> None:
    turns = family("multi-turn+reversal").apply("one two three four", Random(0))
    plain = multi_turn("one two three four", Random(0))
    assert turns[1::2] == plain[1::2]
    assert all(a != b for a, b in zip(turns[::2], plain[::2], strict=True))
    assert isinstance(family("base64+multi-turn").apply("one two", Random(0)), tuple)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bas64", "no family 'bas64'; the families are plain, base64"),
        ("fiction:novel+bas64", r"no family 'bas64' \(in 'fiction:novel\+bas64'\)"),
        ("", "no family ''"),
        ("json+base64+hex", "a stack has two"),
        ("base64+base64", "two different families"),
        ("plain+base64", "other than plain"),
        ("base64+translation:de", r"put the translation first: translation:de\+base64"),
    ],
)
def test_a_name_that_is_none_is_told_with_the_mend(name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        family(name)


def test_a_stack_of_stacks_or_of_two_that_split_is_refused() -> None:
    with pytest.raises(DataError, match="more than two"):
        stack(family("json+base64"), FAMILIES["hex"])
    across = FAMILIES["multi-turn"]
    with pytest.raises(DataError, match="split a text into turns twice"):
        stack(across, Family("other", "", "structure", multi_turn, across_turns=True))


def test_a_stack_is_held_out_with_either_of_its_parts() -> None:
    assert held("json+binary", HELD_OUT)
    assert held("past-tense+hex", HELD_OUT)
    assert held("json+hex", ["json+hex"])
    assert not held("json+hex", HELD_OUT)


@pytest.mark.parametrize("name", [*TRANSLATED, "translation:de+base64"])
def test_a_translation_is_no_function_of_the_text_alone(name: str) -> None:
    with pytest.raises(DataError, match="teacher"):
        family(name).apply("Hello.", Random(0))
    assert family(name).instruction
