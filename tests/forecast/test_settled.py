"""Warnings come where the tail breaks the forecast's assumptions, and stay away where it keeps them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import genpareto

from charter.forecast.elicitation import Elicitation, from_log_p, log_probability, probability, psi_of
from charter.forecast.settled import bend, warnings
from charter.forecast.tails import fit
from charter.forecast.validation import PowerLaw

RNG = np.random.default_rng


def told(data: Elicitation, n: float = 1e5) -> str:
    return "\n".join(warnings(data, fit(data.psi, draws=500), n))


def of_psi(psi: np.ndarray) -> Elicitation:
    return Elicitation(psi, "log-probability", None)


def test_the_test_for_a_bend_rejects_straight_tails_as_rarely_as_it_says() -> None:
    p = [bend(fit(PowerLaw().draw(500, RNG(seed)), draws=2), seed, draws=400)[1] for seed in range(300)]
    assert np.mean(np.array(p) < 0.05) <= 0.09  # .05 and three standard errors
    assert 0.4 <= np.mean(np.array(p) < 0.5) <= 0.6


@pytest.mark.parametrize(("shape", "said"), [(-0.9, "bends down: a straight line forecasts too much"), (1.0, "bends up")])
def test_a_bent_tail_is_told_with_its_direction(shape: float, said: str) -> None:
    assert said in told(of_psi(genpareto.rvs(shape, size=2_000, random_state=3)))


def test_a_straight_tail_of_independent_queries_is_told_nothing() -> None:
    quiet = [told(of_psi(PowerLaw().draw(2_000, RNG(seed)))) == "" for seed in range(20)]
    assert np.mean(quiet) >= 0.75


def test_a_far_forecast_repeated_queries_and_certainty_are_told() -> None:
    psi = PowerLaw().draw(1_000, RNG(0))
    assert "times the 1,000 queries" in told(of_psi(psi), n=1e7)
    assert "repeat" in told(of_psi(np.repeat(psi[:500], 2)))
    certain = np.append(log_probability(psi), 0.0)
    assert "1 queries have probability 1" in told(from_log_p(certain))


@pytest.mark.parametrize(("samples", "noisy"), [(50, True), (5_000_000, False)])
def test_sampling_noise_is_told_where_it_shapes_the_tail(samples: int, noisy: bool) -> None:
    p = probability(psi_of(log_probability(PowerLaw(alpha=8, c=4).draw(1_000, RNG(1)))))
    hits = RNG(2).binomial(samples, p)
    with np.errstate(divide="ignore"):
        data = from_log_p(np.log(hits / samples), "sampling", np.full(1_000, samples))
    assert ("sampling noise" in told(data)) == noisy


def test_a_tail_with_a_rare_worse_mode_moves_with_how_much_of_it_is_read() -> None:
    psi = np.concatenate([RNG(0).exponential(0.05, 1_970), 1 + RNG(1).exponential(1.0, 30)])
    assert "has not settled" in told(of_psi(psi))
