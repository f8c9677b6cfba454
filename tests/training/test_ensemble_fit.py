import numpy as np
import pytest

from charter.errors import DataError
from charter.models.ensemble import disagreement, log_mean_probability
from charter.statistics import auroc
from charter.training.activations import Windows
from charter.training.ensemble import draw, fit_ensemble
from charter.training.probe import fit_probe


def planted(n: int = 160, inputs: int = 6) -> tuple[Windows, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, n)
    owner = np.repeat(np.arange(n), sizes)
    labels = rng.integers(0, 2, (n, 1)).astype(np.float32)
    store = rng.normal(size=(len(owner), inputs))
    store[:, 0] += 1.5 * labels[owner, 0]
    return Windows(store.astype(np.float16), np.arange(len(owner)), owner), labels, [f"p{k // 2}" for k in range(n)]


def test_whole_parents_are_drawn() -> None:
    _, labels, parents = planted()
    picked = draw(parents, labels, 3)
    counts = np.bincount(picked, minlength=len(parents))
    assert (counts[::2] == counts[1::2]).all()
    assert len(picked) == len(parents)
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.1)


def test_members_differ_repeat_with_their_seed_and_each_is_an_ordinary_fit() -> None:
    windows, labels, parents = planted()
    ensemble, again = (fit_ensemble(windows, labels, parents, 0.1, seed=7, serving=3, held_out=2, steps=20) for _ in range(2))
    assert np.array_equal(ensemble.serving.weights, again.serving.weights)
    assert (ensemble.serving.seeds, ensemble.held_out.seeds) == ((7, 8, 9), (10, 11))
    every = np.concatenate([ensemble.serving.weights, ensemble.held_out.weights]).reshape(5, -1)
    assert len(np.unique(every, axis=0)) == 5
    picked = draw(parents, labels, 10)
    alone, _ = fit_probe(windows.of(picked), labels[picked], 0.1, 20)
    assert np.array_equal(ensemble.held_out.weights[0], alone)


def test_what_serves_does_not_depend_on_how_many_are_held_out() -> None:
    windows, labels, parents = planted()
    few, many = (fit_ensemble(windows, labels, parents, 0.1, serving=2, held_out=h, steps=10) for h in (1, 3))
    assert np.array_equal(few.serving.weights, many.serving.weights)


def test_together_they_rank_and_disagree_most_where_the_evidence_is_thin() -> None:
    windows, labels, parents = planted()
    ensemble = fit_ensemble(windows, labels, parents, 0.1, serving=5, held_out=1, steps=30)
    x = np.zeros((3, 6), np.float32)
    x[:, 0] = [-8.0, 0.75, 8.0]
    z = ensemble.serving.logits(x)[..., 0]
    apart = disagreement(z)
    assert apart[1] > apart[0]
    assert apart[1] > apart[2]
    every = ensemble.serving.logits(np.asarray(windows.store, np.float32))[..., 0]
    assert auroc(labels[windows.owner, 0] > 0.5, log_mean_probability(every)) > 0.75


def test_a_class_that_no_draw_can_hold_is_an_error() -> None:
    with pytest.raises(DataError, match="both classes"):
        draw(["a", "b", "c"], np.zeros((3, 1), np.float32), 0)
