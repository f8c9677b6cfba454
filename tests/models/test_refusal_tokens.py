"""A shift of the logits is a shift of logit(p), thresholds and shifts are one dial, and damaged files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import logit, logsumexp
from scipy.special import softmax as theirs

from charter.errors import DataError, GuardError
from charter.models.refusal_tokens import FILE, RefusalTokens, Rule, TokensRecord, probabilities, shifted

LOGITS = st.lists(st.floats(-15, 15), min_size=4, max_size=12).map(np.array)
MARKS = ("respond", "refuse:locks", "refuse:potions")


@given(z=LOGITS, marks=st.integers(2, 3), beta=st.floats(-20, 20))
def test_a_shift_of_the_logits_shifts_logit_p_by_the_same(z: np.ndarray, marks: int, beta: float) -> None:
    raised = z + beta * (np.arange(len(z)) > len(z) - marks)
    before, after = probabilities(z, marks), probabilities(raised, marks)
    np.testing.assert_allclose(before, theirs(z)[-marks:], rtol=1e-12)
    # logit(P) from the logits themselves: refusals against all the rest
    odds = logsumexp(z[len(z) - marks + 1 :]) - logsumexp(z[: len(z) - marks + 1])
    assert logsumexp(raised[len(z) - marks + 1 :]) - logsumexp(raised[: len(z) - marks + 1]) == pytest.approx(odds + beta, abs=1e-9)
    np.testing.assert_allclose(shifted(before, beta), after, rtol=1e-6, atol=1e-12)
    together = before[1:].sum(), after[1:].sum()
    assume(all(1e-9 < p < 1 - 1e-6 for p in together))
    assert logit(together[1]) == pytest.approx(logit(together[0]) + beta, abs=1e-6)
    np.testing.assert_allclose(shifted(after, -beta), before, rtol=1e-5, atol=1e-12)


@given(z=LOGITS, beta=st.floats(-10, 10), theta=st.floats(0.001, 0.999))
def test_a_shift_and_a_moved_threshold_decide_alike(z: np.ndarray, beta: float, theta: float) -> None:
    p = probabilities(z, 3)
    moved = theta * np.exp(-beta) / (1 - theta + theta * np.exp(-beta))
    assume(abs(p[1:].sum() - moved) > 1e-9)
    assert Rule(theta, shift=beta).choose(p, MARKS) == Rule(moved).choose(p, MARKS)


@given(z=LOGITS, low=st.floats(0, 1.5), high=st.floats(0, 1.5))
def test_a_higher_threshold_never_refuses_more_and_never_another_category(z: np.ndarray, low: float, high: float) -> None:
    p = probabilities(z, 3)
    low, high = sorted((low, high))
    first, second = (Rule(theta).choose(p, MARKS) for theta in (low, high))
    assert second in (0, first)
    assert Rule(0.0).choose(p, MARKS) == 1 + int(p[2] > p[1])
    assert Rule(1.01).choose(p, MARKS) == 0


@given(z=LOGITS, theta=st.floats(0, 1.5))
def test_a_categorys_threshold_moves_no_other(z: np.ndarray, theta: float) -> None:
    p = probabilities(z, 3)
    free, own = Rule().choose(p, MARKS), Rule(categories={"locks": theta}).choose(p, MARKS)
    if p[2] > p[1]:
        assert own == free
    else:
        assert own == int(p[1] >= theta)


def test_without_thresholds_the_likelier_of_two_marks_stands() -> None:
    assert [Rule().choose(np.array(p), ("respond", "refuse")) for p in ([0.3, 0.31], [0.31, 0.3])] == [1, 0]


@pytest.mark.parametrize("theta", [-0.1, float("nan"), float("inf")])
def test_a_threshold_that_is_none_and_an_unknown_category_are_refused(theta: float) -> None:
    with pytest.raises(DataError, match="threshold"):
        Rule(theta)
    with pytest.raises(DataError, match="threshold"):
        Rule(categories={"locks": theta})
    with pytest.raises(DataError, match="added to logits"):
        Rule(shift=float("nan"))
    with pytest.raises(DataError, match="there are locks, potions"):
        Rule(categories={"doors": 0.5}).choose(np.array([0.2, 0.3, 0.5]), MARKS)


def _tokens() -> RefusalTokens:
    record = TokensRecord(backbone="m", fingerprint="f", marks=("respond", "refuse"), rows={"respond": 1, "refuse": 1}, steps=1, seed=0)
    return RefusalTokens(record, {"marks": torch.ones(2, 4), "layers.0.q.a": torch.ones(1, 4), "layers.0.q.b": torch.ones(3, 1)})


def test_what_was_saved_is_loaded_and_merged(tmp_path: Path) -> None:
    _tokens().save(tmp_path)
    found = RefusalTokens.load(tmp_path)
    assert found.record == _tokens().record
    weight = torch.zeros(3, 4)
    found.merge({"layers.0.q.weight": weight})
    assert (weight == 1).all()


@pytest.mark.parametrize(
    "change",
    [
        {"marks": torch.ones(3, 4)},
        {"marks": torch.ones(2)},
        {"marks": torch.tensor([[1.0, float("nan")], [0, 0]])},
        {"layers.0.q.b": torch.full((3, 1), float("inf"))},
    ],
)
def test_damaged_tensors_are_refused(change: dict[str, torch.Tensor], tmp_path: Path) -> None:
    good = _tokens()
    RefusalTokens(good.record, good.tensors | change).save(tmp_path)
    with pytest.raises(GuardError, match="train them again"):
        RefusalTokens.load(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"kind": "value head"}', "nonsense"])
def test_a_foreign_record_is_refused(text: str, tmp_path: Path) -> None:
    from charter.models.value_head import write_tensors

    write_tensors(tmp_path / FILE, {"marks": torch.ones(2, 4)}, text)
    with pytest.raises(GuardError, match="not refusal tokens"):
        RefusalTokens.load(tmp_path)


def test_a_missing_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="no such file"):
        RefusalTokens.load(tmp_path)
    _tokens().save(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(GuardError, match="safetensors"):
        RefusalTokens.load(tmp_path)


@pytest.mark.parametrize(
    "marks", [("refuse", "respond"), ("respond", "refuse:a", "refuse:a"), ("respond", "refuse", "refuse:a"), ("respond", "no")]
)
def test_marks_are_respond_and_one_or_different_refusals(marks: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="marks must be"):
        TokensRecord(backbone="m", fingerprint="f", marks=marks, rows={}, steps=0, seed=0)


@pytest.mark.parametrize("name", ["layers.0.q.a", "layers.0.q.b"])
def test_a_change_that_does_not_fit_adds_nothing(name: str) -> None:
    tokens = _tokens()
    weights = {"layers.0.q.weight": torch.zeros(3, 4), "layers.0.k.weight": torch.zeros(3, 4)}
    fine = {"layers.0.k.a": torch.ones(1, 4), "layers.0.k.b": torch.ones(3, 1)}
    for broken in ({**tokens.tensors, name: torch.ones(2, 2)}, {k: t for k, t in tokens.tensors.items() if k != name}):
        with pytest.raises(GuardError, match="does not fit"):
            RefusalTokens(tokens.record, {**fine, **broken}).merge(weights)
        assert not any(w.any() for w in weights.values())
