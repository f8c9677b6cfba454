"""Refusal tokens (Jain et al., arXiv 2412.06748): the first token of a reply says whether it refuses, and its probability is a dial.

The marks are `respond`, then `refuse` or one `refuse:CLAUSE` a category. p = softmax(z) over the vocabulary and the marks, where the
reply begins. To raise the logits of marks by beta is to raise logit(p) of them together by exactly beta:

    p' = p e^beta / (1 - p + p e^beta),    logit(p') = logit(p) + beta,    so    p' >= theta  <=>  p >= theta shifted by -beta

So one forward gives the decision at every threshold and every shift: nothing is trained or run again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from charter.errors import DataError, GuardError
from charter.models import low_rank
from charter.models.value_head import read_tensors, write_tensors

FILE = "refusal_tokens.safetensors"
"""The one file of a folder of refusal tokens that serving needs."""
RESPOND, REFUSE = "respond", "refuse"
ROWS = "marks"
"""The tensor that holds the marks' rows."""
LARGEST_SHIFT = 100.0
_FACTOR = re.compile(r"(layers\.\d+\.[A-Za-z0-9_.]+)\.(a|b)")


class TokensRecord(BaseModel):
    """What a file of refusal tokens belongs to; kept in its header."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["refusal tokens"] = "refusal tokens"
    backbone: str
    fingerprint: str
    """Of the model before training; another one is refused."""
    marks: tuple[str, ...] = Field(min_length=2, max_length=1_000)
    rows: dict[str, int]
    """Rows that each mark was trained on."""
    steps: int = Field(ge=0)
    seed: int

    @model_validator(mode="after")
    def _names(self) -> TokensRecord:
        clauses = [category(mark) for mark in self.marks[1:]]
        single = self.marks == (RESPOND, REFUSE)
        if not single and (self.marks[0] != RESPOND or not all(clauses) or len(set(clauses)) < len(clauses)):
            raise ValueError(f"marks must be {RESPOND}, and {REFUSE} or different {REFUSE}:CLAUSE")
        return self


@dataclass(frozen=True, slots=True)
class RefusalTokens:
    """Trained refusal tokens as data.

    `tensors` holds `marks` [marks, width], what each mark adds to the vocabulary at either end, and for each changed linear map of
    the blocks two factors (`models.low_rank`).
    """

    record: TokensRecord
    tensors: dict[str, Tensor]

    def save(self, folder: Path) -> None:
        """Write the folder's file, to the side and then renamed."""
        write_tensors(folder / FILE, self.tensors, self.record.model_dump_json())

    @classmethod
    def load(cls, folder: Path) -> RefusalTokens:
        """Read what `save` wrote. Whether it fits the model is checked when it meets it.

        Raises:
            GuardError: it is missing, damaged, foreign, or holds numbers that are not finite.
        """
        path = folder / FILE
        if not path.is_file():
            raise GuardError(f"{path}: there is no such file; train refusal tokens with `charter refusal-tokens {folder} --train DATA`")
        tensors, text = read_tensors(path)
        try:
            record = TokensRecord.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "its header"
            raise GuardError(f"{path}: not refusal tokens of this version ({where}: {first['msg']}); train them again") from error
        rows = tensors.get(ROWS)
        if rows is None or rows.ndim != 2 or len(rows) != len(record.marks):
            raise GuardError(f"{path}: needs a row for each of its {len(record.marks)} marks; train them again")
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise GuardError(f"{path}: {name} holds numbers that are not finite; train them again")
        return cls(record, tensors)

    @torch.no_grad()
    def merge(self, parameters: Mapping[str, Tensor]) -> None:
        """Add the trained change to a model's weights, by name without the output head. Either all of it is added or nothing.

        Raises:
            GuardError: a tensor doesn't fit.
        """
        changes = []
        for name in self.tensors:
            found = _FACTOR.fullmatch(name)
            if name == ROWS or (found and found[2] == "a" and f"{found[1]}.b" in self.tensors):
                continue
            target = parameters.get(f"{found[1]}.weight") if found else None
            change = low_rank.product(self.tensors, found[1], target) if found else None
            if target is None or change is None:
                raise GuardError(f"refusal tokens: {name} does not fit a weight of the model; train them again")
            changes.append((target, change))
        if not all(torch.isfinite(target + change).all() for target, change in changes):
            raise GuardError("refusal tokens: would make weights of the model that are not finite; train them again")
        for target, change in changes:
            target += change


@dataclass(frozen=True, slots=True)
class Rule:
    """When a reply begins with a refusal.

    The likeliest category's own threshold is held against that category's probability; where it has none, `threshold` is held against
    that of all refusals together; where there is none either, the model's own choice stands.

    Raises:
        DataError: a threshold is no probability.
    """

    threshold: float | None = None
    """0 refuses everything, more than 1 nothing."""
    categories: Mapping[str, float] = field(default_factory=dict)
    """Thresholds by clause."""
    shift: float = 0.0
    """Added to the logits of all refusal tokens first (beta); the threshold could as well be shifted the other way."""

    def __post_init__(self) -> None:
        if not abs(self.shift) <= LARGEST_SHIFT:
            raise DataError(f"a shift of {self.shift} is none: it is added to logits, from -{LARGEST_SHIFT:.0f} to {LARGEST_SHIFT:.0f}")
        for theta in [*([] if self.threshold is None else [self.threshold]), *self.categories.values()]:
            if not 0 <= theta < np.inf:
                raise DataError(f"a threshold of {theta} is none: it is a probability, from 0 on; more than 1 never refuses")

    def check(self, marks: tuple[str, ...]) -> None:
        """Whether these marks can follow it.

        Raises:
            DataError: it names a category that there is none of.
        """
        if strange := sorted(set(self.categories) - {category(mark) for mark in marks}):
            known = ", ".join(filter(None, map(category, marks))) or "none: they were trained without --per-clause"
            raise DataError(f"there is no refusal token of the clause {strange[0]!r}; there are {known}")

    def choose(self, p: NDArray[np.float64], marks: tuple[str, ...]) -> int:
        """The mark that a reply begins with: its place in `marks`, whose probabilities are p [marks]."""
        self.check(marks)
        p = shifted(p, self.shift) if self.shift else p
        best = 1 + int(np.argmax(p[1:]))
        own = self.categories.get(category(marks[best]))
        if own is not None:
            return best if p[best] >= own else 0
        if self.threshold is not None:
            return best if p[1:].sum() >= self.threshold else 0
        return best if p[best] >= p[0] else 0


def parse_rule(thresholds: Sequence[str]) -> Rule:
    """A rule from what the command line says: "0.2" for all refusals together, "CLAUSE=0.05" for a category; the last one of each stands.

    Raises:
        DataError: one is no threshold.
    """
    threshold, categories = None, {}
    for said in thresholds:
        clause, equals, number = said.rpartition("=")
        try:
            theta = float(number)
        except ValueError as error:
            raise DataError(f"{said!r} is no threshold; give a probability such as 0.2, or one of a clause such as fraud=0.05") from error
        if equals:
            categories[clause] = theta
        else:
            threshold = theta
    return Rule(threshold, categories)


def category(mark: str) -> str:
    """The clause of a `refuse:CLAUSE`; "" of the others."""
    return mark.removeprefix(f"{REFUSE}:") if mark.startswith(f"{REFUSE}:") else ""


def probabilities(logits: ArrayLike, marks: int) -> NDArray[np.float64]:
    """Of the marks [..., marks], which are the last entries of the logits [..., vocabulary and marks]; the rest is the vocabulary's."""
    z = np.asarray(logits, np.float64)
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    found: NDArray[np.float64] = e[..., -marks:] / e.sum(axis=-1, keepdims=True)
    return found


def shifted(p: ArrayLike, beta: float) -> NDArray[np.float64]:
    """The marks' probabilities [..., marks] once beta is added to the logits of all refusal tokens."""
    q = np.asarray(p, np.float64)
    together = q[..., 1:].sum(axis=-1, keepdims=True)
    weights = np.exp(np.where(np.arange(q.shape[-1]), beta, 0.0) - max(beta, 0.0))
    found: NDArray[np.float64] = q * weights / (np.maximum(1 - together, 0) * weights[0] + together * weights[1])
    return found
