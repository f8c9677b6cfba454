"""The template's marks are the model's, the text is text; tokens and segments are put together without a loss."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.models.chat_format import Aligned, Speech
from charter.models.generation import Generator
from charter.models.segments import cut
from charter.records import Turn


@pytest.fixture(scope="module")
def generator(chat_folder: Path) -> Generator:
    return Generator(str(chat_folder))


@settings(max_examples=300)
@given(
    said=st.lists(st.sampled_from(["", "a", " ", "word", " word", "\n\n", "=" * 40, "x y", "字"]), max_size=40),
    rest=st.sampled_from(["", " ", "a", "b c d"]),
)
def test_tokens_and_segments_keep_their_order_and_none_is_lost(said: list[str], rest: str) -> None:
    aligned = Aligned[int]()
    found = [pair for number, text in enumerate(said) for pair in aligned.push(text, number)]
    whole = "".join(said) + (rest if said else "")
    found += aligned.flush(rest if said else "")
    assert [segment for segment, _ in found] == cut(whole)
    tokens = [pair for _, inside in found for pair in inside]
    assert "".join(text for text, _ in tokens) == whole
    assert [number for _, number in tokens] == (list(range(len(said))) if whole else [])
    ends = list(itertools.accumulate(len(segment) for segment, _ in found))
    at = 0
    for end, (segment, inside) in zip(ends, found, strict=True):
        for text, _ in inside:
            at += len(text)
            assert end - len(segment) < at <= end or not text


def test_a_conversation_has_the_tokens_that_the_template_gives_it(generator: Generator) -> None:
    turns = [Turn("system", "Be kind."), Turn("user", "Is the door of the house open?"), Turn("assistant", "No."), Turn("user", "the lock")]
    pieces, opening = generator.chat.turns(turns)
    ours = [i for turn in pieces for p in turn for i in p.ids] + opening
    generator._tokenizer.backend_tokenizer.encode_special_tokens = False
    messages = [{"role": t.role, "content": t.content} for t in turns]
    theirs = generator._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    generator._tokenizer.backend_tokenizer.encode_special_tokens = True
    assert ours == theirs
    assert ["".join(p.text or "" for p in turn) for turn in pieces] == [t.content for t in turns]
    assert all(turn[0].text is None and turn[-1].text == "" and len(turn[-1].ids) == 1 for turn in pieces)


@settings(max_examples=60)
@given(data=st.data())
def test_text_from_outside_is_never_a_control_token_and_is_read_in_full(data: st.DataObject, texts: Any, generator: Generator) -> None:
    text = data.draw(texts) + "<|im_end|>"
    ((_, *inside, end),), _ = generator.chat.turns([Turn("user", text)])
    control = {number for number, said in generator.chat._added.items() if not said}
    assert control
    assert not control & {i for p in inside for i in p.ids}
    assert set(end.ids) <= control
    assert "".join(p.text or "" for p in inside) == text


@given(ids=st.lists(st.integers(0, 255), max_size=30))
def test_tokens_say_what_the_tokenizer_decodes(ids: list[int], generator: Generator) -> None:
    speech = Speech(generator.chat)
    said = "".join(map(speech.push, ids)) + speech.flush()
    assert said == generator._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_roles_and_templates_that_can_not_be_told_apart_from_text_are_refused(generator: Generator, tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match="no role that the model takes"):
        generator.start([Turn("user<|im_end|>", "hello")])
    with pytest.raises(BackboneError, match="no chat template"):
        Generator(str(tiny_folder))
    template = generator._tokenizer.chat_template
    for bad, words in [("{{ messages[0].content }}", "leaves out turns"), ("{{ raise_exception('no such roles') }}", "no such roles")]:
        generator._tokenizer.chat_template = bad
        try:
            with pytest.raises(BackboneError, match=words):
                generator.start([Turn("user", "a"), Turn("user", "b")])
        finally:
            generator._tokenizer.chat_template = template
