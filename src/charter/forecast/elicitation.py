"""Elicitation probabilities p(x) of queries, from any of four sources, as psi = -log(-log p): there an extreme-value tail is a straight line.

Jones et al. 2025 (arXiv 2502.16797): p(x) is the probability that the model, asked x, shows the behaviour. A row of the file is one query:

    {"p": 0.003}                        a probability
    {"log_p": -41.2}                    a natural logarithm: the log-probability of a target reply, summed over its tokens
    {"hits": 3, "samples": 200}         repeated sampling
    {"flagged": false, "score": 0.04}   a line of evaluation's scores.jsonl: p = score where it passed, 0 where it was flagged
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charter.errors import DataError, NoData
from charter.records import read_jsonl

Floats = NDArray[np.float64]
Source = Literal["probability", "log-probability", "sampling", "guard"]
CERTAIN = 1 - 2.0**-24
"""p = 1 has no psi: it counts as this, the largest float32 below 1. Sampling counts as (samples - 1/2) / samples."""


@dataclass(frozen=True, slots=True)
class Elicitation:
    """The probabilities of m queries, drawn from one distribution and independently."""

    psi: Floats
    """-log(-log p), shape (m,); minus infinity where p is 0."""
    source: Source
    samples: NDArray[np.int64] | None
    """Samples behind each p, shape (m,); None where p is no count."""
    certain: int = 0
    """Queries whose p was 1 before it was lowered."""

    def __post_init__(self) -> None:
        if not len(self.psi):
            raise NoData("a forecast needs elicitation probabilities, one row a query, and there is none")

    @property
    def m(self) -> int:
        return len(self.psi)

    @property
    def zeros(self) -> int:
        return int(np.isneginf(self.psi).sum())

    def noise(self) -> Floats | None:
        """Standard error of each psi from sampling, by the delta method: sqrt((1 - p) / (N p)) / -log p; None without counts."""
        if self.samples is None:
            return None
        p = probability(self.psi)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(p > 0, np.sqrt((1 - p) / (self.samples * p)) / -log_probability(self.psi), np.inf)


def psi_of(log_p: ArrayLike) -> Floats:
    """-log(-log p) of natural logarithms of p; they lie in [-inf, 0), and -inf gives -inf."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(-np.asarray(log_p, np.float64)), np.float64)


def log_probability(psi: ArrayLike) -> Floats:
    """log p = -exp(-psi), without underflow of p."""
    with np.errstate(over="ignore"):
        return np.asarray(-np.exp(-np.asarray(psi, np.float64)), np.float64)


def probability(psi: ArrayLike) -> Floats:
    """p = exp(-exp(-psi)); 0 below the smallest float."""
    return np.exp(log_probability(psi))


def read_elicitation(path: Path) -> Elicitation:
    """The rows of a JSONL file (plain or .gz), all of one source.

    Raises:
        DataError: the file can't be read, or a row is of no source, of another than the first, or out of range; names the line.
        NoData: it has no row.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of elicitation probabilities")
    found: list[tuple[float, int]] = []
    first: Source | None = None
    for where, row in _rows(path):
        source = _source(row, where)
        first = first or source
        if source != first:
            raise DataError(f"{where}: is a row of source {source}, and the first row is of source {first}; forecast each by itself")
        found.append(READERS[source](row, where))
    if first is None:
        raise NoData(f'{path}: has no row; write one JSON object a query, such as {{"log_p": -41.2}}')
    log_p, samples = (np.array(column) for column in zip(*found, strict=True))
    return from_log_p(log_p.astype(np.float64), first, samples.astype(np.int64) if first == "sampling" else None)


def from_log_p(log_p: ArrayLike, source: Source = "log-probability", samples: NDArray[np.int64] | None = None) -> Elicitation:
    """Elicitation of natural logarithms in [-inf, 0], shape (m,); certainty is lowered as CERTAIN says, and counted."""
    values = np.asarray(log_p, np.float64)
    ceiling = np.full(values.shape, math.log(CERTAIN)) if samples is None else np.log1p(-0.5 / samples)
    return Elicitation(psi_of(np.minimum(values, ceiling)), source, samples, int((values > math.log(CERTAIN)).sum()))


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in read_jsonl(path):
        yield f"{path}:{number}", row


def _source(row: dict[str, Any], where: str) -> Source:
    sources: dict[Source, tuple[str, ...]] = {
        "probability": ("p",),
        "log-probability": ("log_p",),
        "sampling": ("hits", "samples"),
        "guard": ("flagged", "score"),
    }
    fitting = [source for source, keys in sources.items() if all(key in row for key in keys)]
    if len(fitting) != 1:
        said = "of several sources at once" if fitting else "of no source"
        raise DataError(f'{where}: is {said}; write one of "p", "log_p", "hits" with "samples", or "flagged" with "score"')
    return fitting[0]


def _number(row: dict[str, Any], key: str, where: str, low: float, high: float) -> float:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DataError(f"{where}: {key!r} must be a number from {low:g} to {high:g}, not {str(value)[:40]}")
    return float(value)


def _of_p(row: dict[str, Any], where: str) -> tuple[float, int]:
    p = _number(row, "p", where, 0, 1)
    return (math.log(p) if p else -math.inf), 0


def _of_log_p(row: dict[str, Any], where: str) -> tuple[float, int]:
    return _number(row, "log_p", where, -math.inf, 0), 0


def _of_counts(row: dict[str, Any], where: str) -> tuple[float, int]:
    hits, samples = row["hits"], row["samples"]
    if type(hits) is not int or type(samples) is not int or not 0 <= hits <= samples <= 2**53 or not samples:
        raise DataError(f"{where}: 'hits' of 'samples' must be whole numbers, at least one sample and no more hits than samples")
    return (math.log(hits / samples) if hits else -math.inf), samples


def _of_guard(row: dict[str, Any], where: str) -> tuple[float, int]:
    score = _number(row, "score", where, 0, 1)
    if not isinstance(row["flagged"], bool):
        raise DataError(f"{where}: 'flagged' must be true or false")
    return (math.log(score) if score and not row["flagged"] else -math.inf), 0


READERS: dict[Source, Callable[[dict[str, Any], str], tuple[float, int]]] = {
    "probability": _of_p,
    "log-probability": _of_log_p,
    "sampling": _of_counts,
    "guard": _of_guard,
}
