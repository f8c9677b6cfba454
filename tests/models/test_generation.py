"""A reply is the one that the model writes without anybody reading along, and every token of it comes with its own state."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.generation import Generator, Sampling, draw
from charter.records import Turn

PROMPT = (Turn("user", "Is the door open?"),)


@pytest.fixture(scope="module")
def generator(chat_folder: Path) -> Generator:
    return Generator(str(chat_folder))


def _prompt_ids(generator: Generator) -> list[int]:
    pieces, opening = generator.chat.turns(PROMPT)
    return [i for turn in pieces for p in turn for i in p.ids] + opening


def test_the_likeliest_reply_is_that_of_transformers(generator: Generator) -> None:
    ids = _prompt_ids(generator)
    theirs = generator._model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False, pad_token_id=0)[0, len(ids) :].tolist()
    ours = [t.id for t in generator.start(PROMPT).tokens(Sampling(24, temperature=0))]
    assert len(theirs) > 4
    assert ours[: len(theirs)] == theirs
    assert ours[len(theirs) :] in ([], list(generator.chat.ending))


def test_states_are_those_of_one_batched_pass_and_of_the_guards_own_backbone(generator: Generator, chat_folder: Path) -> None:
    generation = generator.start(PROMPT)
    tokens = list(generation.tokens(Sampling(40, temperature=1, seed=1)))
    prompt = _prompt_ids(generator)
    ids = [*prompt, *(t.id for t in tokens)]
    backbone = Backbone(str(chat_folder))
    assert backbone.fingerprint == generator.fingerprint
    (_, states), *_ = generation.turns
    for model in (generator, backbone):
        (own,) = model.batch([ids])
        torch.testing.assert_close(torch.stack([t.states for t in tokens]), own[len(prompt) :], atol=1e-3, rtol=0)
        torch.testing.assert_close(states, own[: len(states)], atol=1e-3, rtol=0)


def test_a_deeper_block_is_run_but_does_not_change_whose_model_it_is(generator: Generator, chat_folder: Path) -> None:
    shallow = Generator(str(chat_folder), [1])
    assert shallow.fingerprint == Backbone(str(chat_folder), [1]).fingerprint != generator.fingerprint
    first = [[t.id for t in g.start(PROMPT).tokens(Sampling(8, seed=4))] for g in (shallow, generator)]
    assert first[0] == first[1]


@settings(max_examples=25)
@example(seed=0, n=12, stop=[])
@example(seed=2, n=1, stop=["\ufffd"])  # half a character is said at the very end, and may be a stop too
@given(seed=st.integers(0, 30), n=st.integers(1, 25), stop=st.lists(st.sampled_from(["e", "th", "o", " ", "\ufffd", "zz", "the", "\n\n"])))
def test_a_stop_cuts_the_same_reply_and_nothing_else_does(seed: int, n: int, stop: list[str], generator: Generator) -> None:
    free, cut = generator.start(PROMPT), generator.start(PROMPT)
    whole = "".join(t.text for t in free.tokens(Sampling(n, seed=seed)))
    tokens = list(cut.tokens(Sampling(n, seed=seed, stop=tuple(stop))))
    expected = whole[: min((at for s in stop if (at := whole.find(s)) >= 0), default=len(whole))]
    said = "".join(t.text for t in tokens)
    assert said == expected
    assert cut.drawn <= free.drawn <= n
    assert cut.finish == ("stop" if said != whole else free.finish)
    assert [t.ends for t in tokens] == [False] * (len(tokens) - 1) + [True]
    # the cache holds the prompt and all that was given, and so a state for each: nothing was computed ahead or left out
    assert cut._cache.get_seq_length() == cut.prompt_tokens + len(tokens)


@given(taken=st.integers(0, 6))
def test_nothing_is_computed_ahead_of_what_is_taken(taken: int, generator: Generator) -> None:
    generation = generator.start(PROMPT)
    tokens = list(islice(generation.tokens(Sampling(24, seed=5)), taken))
    assert generation._cache.get_seq_length() == generation.prompt_tokens + len(tokens)


def test_a_reply_fills_the_context_and_no_more_and_a_longer_prompt_is_refused(generator: Generator) -> None:
    room = generator.context - len(_prompt_ids(generator))
    longest = max((list(generator.start(PROMPT).tokens(Sampling(10_000, 1.5, 1.0, seed))) for seed in range(3)), key=len)
    assert len(longest) <= room
    with pytest.raises(BackboneError, match="context of 512 tokens"):
        generator.start([Turn("user", "door " * 600)])


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=12), st.floats(0.05, 1.0), st.integers(0, 99))
def test_a_draw_is_among_the_fewest_tokens_that_hold_top_p(logits: list[float], top_p: float, seed: int) -> None:
    p = torch.softmax(torch.tensor(logits, dtype=torch.float32), -1)
    chosen = draw(torch.tensor(logits), Sampling(temperature=1.0, top_p=top_p), torch.Generator().manual_seed(seed))
    assert p[p > p[chosen]].sum() < top_p + 1e-5
    assert logits[draw(torch.tensor(logits), Sampling(temperature=0))] == max(logits)


def test_the_last_step_reads_no_deeper_than_the_probe(chat_folder: Path) -> None:
    """A block below which nothing is read has not seen the last token; up to there the states are those of a whole pass."""
    generator = Generator(str(chat_folder), [1])
    generation = generator.start(PROMPT)
    tokens = list(generation.tokens(Sampling(5, temperature=0)))
    shallow, deep = (generation._cache.get_seq_length(block) for block in (0, 1))
    assert shallow == generation.prompt_tokens + len(tokens)
    assert deep < shallow
    (own,) = generator.batch([[*_prompt_ids(generator), *(t.id for t in tokens)]])
    torch.testing.assert_close(torch.stack([t.states for t in tokens]), own[-len(tokens) :], atol=1e-3, rtol=0)


def test_no_room_for_a_reply_is_the_mark_alone(generator: Generator) -> None:
    generation = generator.start(PROMPT)
    (only,) = generation.tokens(Sampling(0))
    assert (only.ends, only.text, generation.finish, generation.drawn) == (True, "", "length", 0)
