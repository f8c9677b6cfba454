"""A forecast and its evidence as plain data, for --json and for the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from charter.errors import DataError
from charter.forecast.elicitation import Elicitation, probability
from charter.forecast.risk import forecast, frequency
from charter.forecast.sabotage import Sabotage, assess, recovered
from charter.forecast.settled import bend, warnings
from charter.forecast.tails import Fit, Method, fit
from charter.forecast.trials import Log
from charter.forecast.validation import Backtest, backtest
from charter.statistics import LEVEL, Interval

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What a forecast is asked for."""

    n: Sequence[float]
    thresholds: Sequence[float] = (0.5,)
    """Probabilities above which a query counts as bad."""
    method: Method = "likelihood"
    top: int | None = None
    quantile: float = 0.5
    level: float = LEVEL
    seed: int = 0


def tell(data: Elicitation, asked: Asked) -> dict[str, Any]:
    """Fit, forecast each n, doubt, and check on the data's own rest where there is enough of it.

    Raises:
        DataError: nothing is asked for, or the data don't carry it.
    """
    if not asked.n:
        raise DataError("a forecast needs the number of queries it is for, such as --n 1e6")
    if not 0.5 <= asked.level < 1:
        raise DataError(f"the level of an interval lies between 0.5 and 1, not at {asked.level:g}")
    fitted = fit(data.psi, asked.method, asked.top, asked.seed)
    shape, p = bend(fitted, asked.seed)
    return {
        "schema": SCHEMA,
        "source": data.source,
        "m": data.m,
        "zeros": data.zeros,
        "certain": data.certain,
        "seed": asked.seed,
        "level": asked.level,
        "quantile": asked.quantile,
        "largest": float(probability(fitted.values[0])),
        "tail": {**_tail(fitted), "bend": {"shape": shape, "p": p}},
        "forecasts": [_at(fitted, n, asked) for n in asked.n],
        "frequency": [{"threshold": t, **frequency(fitted, t, asked.level).as_dict()} for t in asked.thresholds],
        "validation": _checked(data, asked),
        "warnings": warnings(data, fitted, max(asked.n), asked.seed),
    }


def tell_sabotage(log: Log, opportunities: int, alpha: float, threshold: float | None, level: float, seed: int) -> dict[str, Any]:
    """What the trials say of a deployment, and the answers of hidden capability; null where there are none."""
    found = assess(log.trials, log.honest, opportunities, alpha, threshold, level, seed) if log.trials is not None else None
    share = None
    if log.answers is not None:
        original, locked, unlocked = log.answers
        share = recovered(original, locked, unlocked, level, seed).as_dict()
    return {"schema": SCHEMA, "seed": seed, "level": level, "sabotage": found and _sabotage(found, alpha), "recovered": share}


def _tail(fitted: Fit) -> dict[str, float | int | str]:
    t = fitted.tail
    return {
        "method": fitted.method,
        "top": fitted.top,
        "threshold": float(t.threshold),
        "share": float(t.share),
        "scale": float(t.scale),
        "shape": float(t.shape),
    }


def _at(fitted: Fit, n: float, asked: Asked) -> dict[str, Any]:
    found = forecast(fitted, n, asked.quantile, asked.level, asked.seed)
    log_p, maximum = found.worst.log_p, found.worst.maximum
    return {
        "n": n,
        "worst": _mapped(log_p, math.exp),
        "worst_log10": _mapped(log_p, lambda x: x / math.log(10)),
        "maximum": _mapped(maximum, math.exp),
        "aggregate": found.aggregate.as_dict(),
        "expected": found.expected.as_dict(),
    }


def _mapped(i: Interval, rising: Callable[[float], float]) -> dict[str, float | int | None]:
    value, low, high = (None if x is None else rising(max(x, -1e300)) for x in (i.value, i.low, i.high))
    return Interval(value, low, high, i.n).as_dict()


def _checked(data: Elicitation, asked: Asked) -> dict[str, Any] | None:
    """The backtest; None where the data are too few to hold some back."""
    try:
        found: Backtest = backtest(data.psi, asked.method, seed=asked.seed, top=asked.top)
    except DataError:
        return None
    return asdict(found)


def _sabotage(found: Sabotage, alpha: float) -> dict[str, Any]:
    m, best = found.monitor, found.best
    return {
        "opportunities": found.opportunities,
        "alpha": alpha,
        "monitor": {
            "threshold": m.threshold if np.isfinite(m.threshold) else None,
            "missed": m.missed.as_dict(),
            "false_alarms": m.false_alarms.as_dict(),
            "certified": m.certified,
        },
        "best": {
            "attempts": best.attempts,
            "hand_in_below": best.hand_in_below if math.isfinite(best.hand_in_below) else None,
            "win": best.win,
        },
        "win": found.win.as_dict(),
        "warnings": _pool(found),
    }


def _pool(found: Sabotage) -> list[str]:
    n, attempts = found.win.n, found.best.attempts
    if attempts <= n:
        return []
    return [
        f"the best strategy draws {attempts:,} times from {n} trials, which can't tell a chance of being noticed below 1 in {n} from none"
    ]
