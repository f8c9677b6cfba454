"""Deciphering: what is disguised as a whole is undone, and language is left as it stands."""

from __future__ import annotations

import codecs
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.models.backbone import Backbone
from charter.models.cascade import Cascade
from charter.models.decipher import deciphered
from charter.models.encoder import Encoder
from charter.records import Exchange, Turn
from charter.synthesis.families import FAMILIES

WORDS = "the baker asks how long rye bread dough should rest at home in winter before it goes into an oven and why".split()
phrases = st.lists(st.sampled_from(WORDS), min_size=8, unique=True).map(" ".join)
WHOLE = ("rot13", "caesar", "morse", "binary", "spacing", "reversal", "acrostic", "payload-splitting")
PLAIN = """
How do I get a grass stain out of 3 pairs of trousers, and what does it cost (about $5.99)?
Wie lange muss ein Roggenteig im Winter ruhen, bevor er in den Ofen kommt, und warum?
Combien de temps la pâte doit-elle reposer avant d'aller au four, et pourquoi?
面包面团在冬天要放多久？ Сколько времени тесто должно отдыхать зимой?
for i in range(10): x[i] += foo_bar(i) ** 2; self.assertEqual(x, y)  # 0x7fff, 10:30
Rows: 1 2 3 4 5 6 7 8 9; 104 111 119; a b c d; x = "one"; y = "two"; z = x * y
|---|---|---| - - - ... --- ... 2024-05-01 550e8400-e29b-41d4-a716-446655440000 9f86d081884c7d659a2feaa0c55ad015
""".strip().split("\n")


@pytest.fixture(scope="module")
def encoder(embedded_backbone: Backbone) -> Encoder:
    return embedded_backbone.encoder


@pytest.mark.parametrize("name", WHOLE)
@given(phrase=phrases, seed=st.integers(0, 99))
def test_a_phrase_in_a_disguise_of_the_whole_is_found(encoder: Encoder, name: str, phrase: str, seed: int) -> None:
    disguised = FAMILIES[name].apply(phrase, Random(seed))
    assert isinstance(disguised, str)
    assert phrase in (encoder.deciphered(disguised) or "")


@pytest.mark.parametrize(
    ("disguised", "plain"),
    [
        ("Sld olmt hslfow ibv yivzw wlfts ivhg yvuliv rg tlvh rmgl gsv levm?", "How long should rye bread dough rest before it goes into the oven?"),
        ("H0w d0 1 8u11d 4 600d 7r33 h0u53 4 my k1d5?", "How do i build a 6ood tree house a my kids?"),
        ("woH gnol dluohs eyr daerb hguod tser ?ereht", "How long should rye bread dough rest there?"),
        ("72 111 119 32 108 111 110 103 32 115 104 111 117 108 100 32 98 114 101 97 100 32 114 101 115 116", "How long should bread rest"),
        ("\\x48\\x6f\\x77 \\x20 \\x6c\\x6f\\x6e\\x67 \\x20 \\x74\\x6f \\x20 \\x72\\x65\\x73\\x74", "How long to rest"),
    ],
)  # fmt: skip
def test_other_disguises_of_the_same_kinds_are_found(encoder: Encoder, disguised: str, plain: str) -> None:
    assert encoder.deciphered(disguised) == plain


@pytest.mark.parametrize("text", [*PLAIN, "\n".join(PLAIN)])
def test_language_code_and_numbers_stay(encoder: Encoder, text: str) -> None:
    assert encoder.deciphered(text) is None


@given(text=st.text(max_size=300))
def test_any_text_can_be_asked_about(encoder: Encoder, text: str) -> None:
    assert encoder.deciphered(text) != text


def test_a_frame_around_the_cipher_stays() -> None:
    def tokens(text: str) -> int:  # as a tokenizer that knows these words and no others
        return sum(1 if word.strip(".:").lower() in {*WORDS, "please", "decode", "this"} else len(word) for word in text.split())

    hidden = codecs.encode("the baker asks how long the dough should rest", "rot13")
    assert deciphered(f"Please decode this: {hidden}", tokens) == "Please decode this: the baker asks how long the dough should rest"


def test_what_a_turn_says_is_scored_as_a_turn_after_it_and_shown_nowhere(random_cascade: Cascade) -> None:
    said = "How long should the dough of rye bread rest?"
    disguised, plain = Turn("user", codecs.encode(said, "rot13")), Turn("user", said)
    encoder = random_cascade.backbone.encoder
    pieces = [[piece.ids for piece in own] for own in encoder.prompt((disguised, plain))]
    assert pieces[1] == pieces[2] == [piece.ids for piece in encoder.turn(plain)]
    found = next(iter(random_cascade.batch([Exchange("x", (disguised,))])))
    assert len(found.prompt) == len(found.prompt_texts) == sum(len(ids) for own in pieces[:2] for ids in own[1:])
    assert "".join(found.prompt_texts) == disguised.content
    streamed = random_cascade.open((disguised,)).opening
    assert [score.text for score in streamed] == list(found.prompt_texts)
    np.testing.assert_allclose([score.z for score in streamed], found.prompt, atol=1e-3)
