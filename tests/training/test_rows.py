from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charter.models.backbone import Backbone
from charter.records import Exchange, Turn, View
from charter.training.rows import LowerStates, Row, collate, digest, encode, schedule

TALK = Exchange(
    "t", (Turn("user", "the door"), Turn("assistant", "is old"), Turn("user", "and the lock?"), Turn("assistant", "the lock is old"))
)


def row(length: int, label: float = 0.0, view: View = "prompt", exchange: int | None = None) -> Row:
    return Row(
        np.arange(1, length + 1), np.arange(length) > 0, view, np.array([label], np.float32), length if exchange is None else exchange
    )


@pytest.mark.parametrize("view", ["prompt", "exchange"])
def test_a_view_scores_its_own_turns_and_never_the_marks_that_open_them(view: View, tiny_llama: Backbone) -> None:
    ids, scored = encode(tiny_llama.encoder, TALK, view)
    turns = TALK.turns if view == "exchange" else TALK.prompt
    expected: list[bool] = []
    for number, turn in enumerate(turns):
        wanted = view == "prompt" or number == len(turns) - 1
        for piece in tiny_llama.encoder.turn(turn):
            expected += [wanted and piece.text is not None] * len(piece.ids)
    assert scored == expected
    assert ids == [i for turn in turns for piece in tiny_llama.encoder.turn(turn) for i in piece.ids]
    assert sum(scored) > 3


def test_what_a_disguised_prompt_says_comes_after_it_and_is_scored_with_it(embedded_backbone: Backbone) -> None:
    encoder, said = embedded_backbone.encoder, "Where can I find a quiet place to read about tulips?"
    hidden = Turn("user", said[::-1])
    prompt = Exchange("x", (hidden,))
    exchange = Exchange("x", (hidden, Turn("assistant", "In the library.")))
    ids, scored = encode(encoder, prompt, "prompt")
    plain = [i for text in (said[::-1], said) for piece in encoder.turn(Turn("user", text)) for i in piece.ids]
    assert ids == plain
    assert sum(scored) == len(ids) - 2 * len(encoder.opening("user").ids)
    ids, scored = encode(encoder, exchange, "exchange")
    assert ids[: len(plain)] == plain
    assert not any(scored[: len(plain)])


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=80), budget=st.integers(100, 600), seed=st.integers(0, 3))
def test_each_epoch_takes_every_row_once_within_the_budget(lengths: list[int], budget: int, seed: int) -> None:
    batches = schedule(lengths, budget, 3, seed)
    assert sorted(int(i) for batch in batches for i in batch) == sorted([*range(len(lengths))] * 3)
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)
    assert [b.tolist() for b in schedule(lengths, budget, 3, seed)] == [b.tolist() for b in batches]
    assert [b.tolist() for b in schedule(lengths, budget, 1, seed)] == [
        b.tolist() for b in batches[: len(schedule(lengths, budget, 1, seed))]
    ]


def test_little_is_padding_and_neighbours_change_with_the_epoch() -> None:
    lengths = np.random.default_rng(0).lognormal(4.5, 0.8, 2_000).astype(int).clip(5, 1_024).tolist()
    batches = schedule(lengths, 4_096, 2, 0)
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    assert 2 * sum(lengths) / padded > 0.9
    half = len(schedule(lengths, 4_096, 1, 0))
    assert {frozenset(b.tolist()) for b in batches[:half]} != {frozenset(b.tolist()) for b in batches[half:]}
    first = [max(lengths[i] for i in batch) for batch in batches[:half]]
    assert first != sorted(first)  # short and long batches come mixed


def test_padding_is_marked_and_never_scored() -> None:
    batch = collate([row(3), row(5, 1.0, "exchange"), row(2)], np.array([1, 2]))
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 0, 0, 0]]
    assert batch.present.tolist() == [[True] * 5, [True] * 2 + [False] * 3]
    assert not batch.scored[~batch.present].any()
    assert batch.views == ("exchange", "prompt")
    assert batch.labels.tolist() == [[1.0], [0.0]]


def test_a_digest_notices_any_change_of_rows_or_settings() -> None:
    rows = [row(3), row(4, 1.0)]
    others = [
        [row(3)],
        [row(3), row(5, 1.0)],
        [row(3), row(4)],
        [row(4, 1.0), row(3)],
        [row(3), row(4, 1.0, "exchange")],
        [row(3), row(4, 1.0, exchange=3)],
    ]
    digests = [digest(rows, 1), digest(rows, 2), *(digest(other, 1) for other in others)]
    assert len(set(digests)) == len(digests)
    assert digest([row(3), row(4, 1.0)], 1) == digests[0]


def test_kept_states_come_back_in_any_company(tmp_path: Path) -> None:
    lengths, rng = [3, 5, 2, 4], torch.Generator().manual_seed(0)
    store = LowerStates(tmp_path / "lower.f16", lengths, 6)
    states = torch.randn(2, 5, 6, generator=rng).half().float()
    assert store.get(np.array([1])) is None
    store.put(np.array([1, 2]), states)
    assert store.get(np.array([1, 0])) is None
    again = LowerStates(tmp_path / "lower.f16", lengths, 6).get(np.array([2, 1]))
    assert again is not None
    assert torch.equal(again[1], states[0])
    assert torch.equal(again[0, :2], states[1, :2])
    assert (again[0, 2:] == 0).all()  # what stood in the padding was not kept
    store.put(np.array([0]), torch.full((1, 3, 6), 1e9))
    assert torch.isfinite(store.get(np.array([0]))).all()  # type: ignore[arg-type]
    store.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["lower.f16", "lower.done"])
def test_a_store_of_the_wrong_size_is_not_believed(file: str, tmp_path: Path) -> None:
    store = LowerStates(tmp_path / "lower.f16", [3, 5], 6)
    store.put(np.array([0, 1]), torch.ones(2, 5, 6))
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:-1])
    assert LowerStates(tmp_path / "lower.f16", [3, 5], 6).get(np.array([0])) is None
