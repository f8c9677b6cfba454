"""Whether a tail has settled: what in the data speaks against the forecast, each in a sentence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from charter.errors import DataError
from charter.forecast.elicitation import Elicitation
from charter.forecast.risk import worst
from charter.forecast.tails import Fit, fit, moments, unit_heads
from charter.statistics import LEVEL

ALARM = 0.05
"""Chance of a false alarm of the test for a bend."""
FAR = 1_000
"""n over m beyond which nobody has checked such a forecast (Jones et al. 2025 check up to 100)."""
NOISY = 0.5
"""Standard error of psi over the tail's scale from which on sampling noise shapes the tail."""


def warnings(data: Elicitation, fitted: Fit, n: float, seed: int = 0) -> list[str]:
    """Everything a reader of the forecast at n has to know; empty where nothing was found."""
    return [*_thin(data, fitted, n), *_bent(fitted, seed), *_moving(data, fitted, n, seed), *_noisy(data, fitted)]


def bend(fitted: Fit, seed: int = 0, draws: int = 2_000) -> tuple[float, float]:
    """Shape of the generalised Pareto tail over the fitted range, and the two-sided p-value of a straight one (shape 0).

    The shape's distribution under a straight tail depends on the number of excesses alone, so it is drawn.
    """
    k = max(fitted.top, min(100, fitted.m // 10))
    head = fitted.values[: k + 1]
    if np.isneginf(head[-1]):
        head = fitted.values[: fitted.top + 1]
    k = len(head) - 1
    shape = float(moments(head[:k] - head[k])[0])
    unit = unit_heads(fitted.m, k, np.random.default_rng([seed, 2]), draws)
    null = moments(unit[:, :k] - unit[:, k:])[0]
    more = min((null >= shape).sum(), (null <= shape).sum())
    return shape, min(1.0, 2 * float(more + 1) / (draws + 1))


def _thin(data: Elicitation, fitted: Fit, n: float) -> Iterator[str]:
    if n > FAR * data.m:
        yield f"n is {n / data.m:,.0f} times the {data.m:,} queries behind it: such a forecast has been checked to some 100 times only"
    head = fitted.values[: fitted.top]
    repeated = len(head) - len(np.unique(head))
    if repeated > 0.1 * len(head):
        yield f"{repeated} of the {len(head)} largest probabilities repeat others: queries that repeat each other, or counts too coarse"
    if data.certain:
        yield f"{data.certain:,} queries have probability 1, lowered so that they have a place: the worst-query risk is already certainty"


def _bent(fitted: Fit, seed: int) -> Iterator[str]:
    shape, p = bend(fitted, seed)
    if p < ALARM:
        how = "down: a straight line forecasts too much" if shape < 0 else "up: a straight line forecasts too little"
        yield f"the tail has not settled: over the largest values it bends {how} (shape {shape:+.2f}, p = {p:.2g})"


def _moving(data: Elicitation, fitted: Fit, n: float, seed: int) -> Iterator[str]:
    """A fit to half, or twice, as many values should not leave the interval."""
    told = worst(fitted, n, level=LEVEL, seed=seed).log_p
    for top, word in ((fitted.top // 2, "half"), (fitted.top * 2, "twice")):
        try:
            other = worst(fit(data.psi, fitted.method, top, seed, draws=2), n, seed=seed).log_p.value
        except DataError:
            continue
        assert told.low is not None
        assert told.high is not None
        assert other is not None
        if not told.low <= other <= told.high:
            yield (
                f"the tail has not settled: read off {word} as many values ({top}), the worst query's p is "
                f"{10 ** (other / np.log(10)):.2g}, outside the interval"
            )


def _noisy(data: Elicitation, fitted: Fit) -> Iterator[str]:
    noise = data.noise()
    if noise is None:
        return
    head = np.argsort(-data.psi, kind="stable")[: fitted.top]
    error, scale = float(np.sqrt(np.mean(noise[head] ** 2))), float(fitted.tail.scale)
    if error > NOISY * scale:
        # An exponential tail plus normal noise keeps its slope and moves up by variance / (2 scale).
        yield (
            f"sampling noise shapes the tail: psi is known to {error:.2f} where its scale is {scale:.2f}, which lifts the forecast by some "
            f"{error**2 / (2 * scale):.2f} in psi: take more samples a query, {int((2 * error / scale) ** 2) + 1} times as many or so"
        )
