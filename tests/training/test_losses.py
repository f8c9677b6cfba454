import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from charter.models.probe import MovingAverage
from charter.training.losses import annealed_cummax, smoothing_matrix, softmax_weighted


def by_hand(z: list[list[float]], y: list[float]) -> float:
    """The paper's formula, an exchange at a time: L = mean_i sum_t w_t BCE(y, sigmoid(z_t)), w = softmax(z)."""
    total = 0.0
    for windows, label in zip(z, y, strict=True):
        weights = [math.exp(v) for v in windows]
        losses = [math.log1p(math.exp(-v)) if label else math.log1p(math.exp(v)) for v in windows]
        total += sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    return total / len(y)


def test_the_loss_is_the_papers_formula() -> None:
    z = [[0.3, -1.2, 2.0], [0.1], [-3.0, 4.0]]
    y = [1.0, 0.0, 0.0]
    logits = torch.tensor([v for windows in z for v in windows])[:, None]
    owner = torch.tensor([0, 0, 0, 1, 2, 2])
    assert softmax_weighted(logits, torch.tensor(y)[:, None], owner, 3).item() == pytest.approx(by_hand(z, y), rel=1e-5)


def test_heads_add_up_and_do_not_mix() -> None:
    rng = np.random.default_rng(0)
    logits, labels = torch.tensor(rng.normal(size=(9, 2))), torch.tensor(rng.integers(0, 2, size=(4, 2)).astype(float))
    owner = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3])
    both = softmax_weighted(logits.float(), labels.float(), owner, 4)
    apart = sum(softmax_weighted(logits[:, [h]].float(), labels[:, [h]].float(), owner, 4) for h in (0, 1))
    assert both.item() == pytest.approx(float(apart), rel=1e-5)


def test_huge_logits_stay_finite() -> None:
    logits = torch.tensor([[800.0], [-800.0]], requires_grad=True)
    loss = softmax_weighted(logits, torch.tensor([[0.0]]), torch.tensor([0, 0]), 1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def annealed_by_hand(z: list[float], y: float, omega: float) -> float:
    """The paper's formula for one exchange and head, on probabilities: (1/T) sum_t BCE(y, (1 - omega) p_t + omega max_{s<=t} p_s)."""
    p = [1 / (1 + math.exp(-v)) for v in z]
    mixed = [(1 - omega) * p[t] + omega * max(p[: t + 1]) for t in range(len(p))]
    return -sum(y * math.log(m) + (1 - y) * math.log(1 - m) for m in mixed) / len(p)


logit = st.floats(-15, 15)


@given(
    rows=st.lists(st.lists(st.tuples(logit, logit, st.booleans()), min_size=1, max_size=8), min_size=1, max_size=4),
    labels=st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=4, max_size=4),
    omega=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)),
)
def test_the_annealed_loss_is_the_papers_formula_wherever_the_padding_lies(
    rows: list[list[tuple[float, float, bool]]], labels: list[tuple[float, float]], omega: float
) -> None:
    rows = [[*row, (0.5, -0.5, True)] for row in rows]  # the mask of each row has a token
    longest = max(map(len, rows))
    logits = torch.full((len(rows), longest, 2), 1e9, dtype=torch.float64)  # padding would be the maximum
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for n, row in enumerate(rows):
        for t, (a, b, scored) in enumerate(row):
            mask[n, t] = scored
            if scored:
                logits[n, t] = torch.tensor([a, b])
    expected = sum(
        annealed_by_hand([token[h] for token in row if token[2]], labels[n][h], omega) for n, row in enumerate(rows) for h in (0, 1)
    ) / len(rows)
    found = annealed_cummax(logits, torch.tensor(labels[: len(rows)], dtype=torch.float64), mask, omega)
    assert found.item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_annealed_loss_has_plain_bce_and_the_cumulative_maximum_as_its_ends() -> None:
    rng = np.random.default_rng(3)
    logits, labels = torch.tensor(rng.normal(0, 3, (4, 9, 2))), torch.tensor(rng.integers(0, 2, (4, 2)).astype(float))
    everything = torch.ones(4, 9, dtype=torch.bool)
    spread = labels[:, None].expand(4, 9, 2)
    for omega, read in ((0.0, logits), (1.0, logits.cummax(1).values)):
        plain = 2 * torch.nn.functional.binary_cross_entropy_with_logits(read, spread)
        assert annealed_cummax(logits, labels, everything, omega).item() == pytest.approx(plain.item(), rel=1e-9)


@pytest.mark.parametrize("omega", [0.0, 0.3, 1.0])
def test_the_gradient_of_the_annealed_loss_is_its_finite_difference(omega: float) -> None:
    rng = np.random.default_rng(5)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[False, True, True, True, False], [True, True, False, True, True]])
    logits = torch.tensor(rng.normal(0, 2, (2, 5, 2)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: annealed_cummax(z, labels, mask, omega), (logits,))
    (slope,) = torch.autograd.grad(annealed_cummax(logits, labels, mask, omega), logits)
    assert (slope[~mask] == 0).all()
    assert slope[mask].abs().sum() > 0


def test_at_the_end_only_new_maxima_get_a_gradient() -> None:
    """Why it is annealed: the pure maximum teaches one token at a time."""
    logits = torch.tensor([[[0.0], [2.0], [1.0], [3.0]]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(annealed_cummax(logits, torch.ones(1, 1), torch.ones(1, 4, dtype=torch.bool), 1.0), logits)
    assert (slope[0, :, 0] != 0).tolist() == [True, True, False, True]


@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0])
def test_huge_logits_keep_the_annealed_loss_finite(omega: float) -> None:
    logits = torch.tensor([[[800.0], [-800.0], [0.0]]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    for label in (0.0, 1.0):
        loss = annealed_cummax(logits, torch.tensor([[label]]), mask, omega)
        (slope,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()


def test_an_exchange_far_below_the_loudest_one_still_has_a_loss() -> None:
    """Weights are taken against each exchange's own maximum: against that of all, its own would vanish together."""
    logits = torch.tensor([[300.0], [-300.0], [-301.0]])
    found = softmax_weighted(logits, torch.tensor([[1.0], [1.0]]), torch.tensor([0, 1, 1]), 2)
    assert found.item() == pytest.approx(by_hand([[300.0], [-300.0, -301.0]], [1.0, 1.0]), rel=1e-5)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_gradient_through_the_weights_is_the_closed_form_and_detached_the_weighted_slope(label: float) -> None:
    """dL/dz_s = w_s [(l_s - L) / tau + l'_s], and w_s l'_s where the weights are held fixed."""
    z = torch.tensor(np.random.default_rng(2).normal(0, 3, (7, 1)), requires_grad=True)
    y, owner = torch.tensor([[label]], dtype=torch.float64), torch.zeros(7, dtype=torch.long)
    w, p = torch.softmax(z.detach(), 0), torch.sigmoid(z.detach())
    own = -torch.log(p if label else 1 - p)
    through = w * (own - (w * own).sum() + p - label)
    for detach, expected in ((False, through), (True, w * (p - label))):
        (slope,) = torch.autograd.grad(softmax_weighted(z, y, owner, 1, detach), z)
        assert torch.allclose(slope, expected, atol=1e-12)


@given(z=st.lists(logit, min_size=1, max_size=40), window=st.integers(1, 20))
def test_smoothing_is_the_sliding_mean_and_what_serving_does(z: list[float], window: int) -> None:
    column = torch.tensor(z, dtype=torch.float64)[:, None]
    mean = smoothing_matrix("mean", window, len(z), torch.float64) @ column
    assert mean[:, 0].tolist() == pytest.approx([np.mean(z[max(0, t + 1 - window) : t + 1]) for t in range(len(z))], abs=1e-9)
    average = smoothing_matrix("ema", window, len(z), torch.float64) @ column
    assert average.numpy() == pytest.approx(MovingAverage(window).push(column.numpy()), abs=1e-6)


def test_the_gradient_is_the_same_bit_for_bit_however_many_threads_add_it_up() -> None:
    torch.manual_seed(0)
    owner = torch.randint(0, 40, (20_000,))
    z, labels = torch.randn(20_000, 8), torch.randint(0, 2, (40, 8)).float()
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        found = [torch.autograd.grad(softmax_weighted(x, labels, owner, 40), x)[0] for x in (z.clone().requires_grad_() for _ in range(12))]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], gradient) for gradient in found[1:])
