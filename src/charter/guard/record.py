"""guard.json: what a guard was made from, its operating points and their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from charter.models.calibrate import ABOVE_ALL, ViewPolicy

ViewName = Literal["prompt", "exchange", "reply"]
WINDOW, MAX_WINDOW = 16, 1_024
"""models.probe.WINDOW, which can't be imported here without torch; a test holds the two together."""
PointName = Literal["quiet", "balanced"]
"""The operating points: few false positives, or more found."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SliceEvidence(_Strict):
    """What a threshold did to one slice of harmless dev examples."""

    n: int = Field(ge=1)
    flagged: int = Field(ge=0)
    bound: float
    """One-sided 95 % Clopper-Pearson upper bound of the false-positive rate."""


class ClauseRecord(_Strict):
    """A clause's own threshold in one view, with its evidence."""

    threshold: float = Field(ge=0, le=1)
    """Probability from which the clause's head flags by itself."""
    budget: float = Field(gt=0, lt=1)
    certified: bool
    sentence: str
    evidence: dict[str, SliceEvidence]


class Thresholds(_Strict):
    """One view's thresholds at an operating point, with their evidence."""

    threshold: float = Field(ge=0, le=1)
    certified: bool
    """Whether the budget is met by the bound on every slice."""
    sentence: str
    """The same in words, with the rate that can be certified where the budget can't."""
    evidence: dict[str, SliceEvidence]
    """Of all thresholds together."""
    clauses: dict[str, ClauseRecord] = Field(default_factory=dict)
    """The clauses that have a threshold of their own."""


class GateRecord(_Strict):
    """When a stage is asked, in one view."""

    threshold: float
    """Logit of the stages before it from which it is asked."""
    read: float = Field(ge=0, le=1)
    """Share of the tokens of ordinary dev exchanges that it reads."""
    low: float
    high: float
    """Its 95 % interval."""
    n: int = Field(ge=1)
    """Exchanges that it rests on."""


class HeadRecord(_Strict):
    """The value head's part in one view."""

    mix: float = Field(ge=0, le=1)
    gate: GateRecord | None = None
    """None: it reads everything."""


class SpreadRecord(_Strict):
    """A mean with its 95 % interval and the number of exchanges that it rests on."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)


class EnsembleRecord(_Strict):
    """Bootstrap members of the linear probe, which stand in `ensemble.safetensors`: those that serve first."""

    serving: int = Field(ge=1, le=1_000)
    held_out: int = Field(ge=0, le=1_000)
    """Kept apart: an attack on the guard is judged by these."""
    disagreement: dict[ViewName, dict[Literal["harmless", "restricted"], SpreadRecord]]
    """Mean standard deviation of the serving members' probabilities, at the loudest window of each dev exchange."""


class WholeRecord(_Strict):
    """A sentence encoder's part: it reads whole turns of the prompt."""

    encoder: str
    fingerprint: str
    """Of its weights, before any change that the guard brings; another model is refused."""
    tuned: bool = False
    """Whether the guard brings a change of those weights."""
    mix: float = Field(ge=0, le=1)
    """Its share of the prompt's logit, where a turn ends."""
    lead: float = Field(default=0.5, ge=0, le=1)
    """Its share of the first impression, by which the backbone is asked."""
    gate: GateRecord | None = None
    """From which first glance on it reads a window; None: always."""


class ViewRecord(Thresholds):
    """One view's scorers and its thresholds at the quiet operating point."""

    temperature: float = Field(gt=0)
    offset: float
    mix: float = Field(ge=0, le=1)
    """The probe's share beside the screen."""
    gate: GateRecord | None = None
    """When the backbone is run; None: always."""
    head: HeadRecord | None = None
    slices: list[str] = Field(default_factory=list, max_length=100_000)
    """Names of the slices in calibration.safetensors, in the order that it counts them."""

    def policy(self, clauses: Sequence[str], at: Thresholds | None = None) -> ViewPolicy:
        """How logits of the overall head and of these clauses become a verdict, by these thresholds or by others."""
        at = at or self
        own = tuple(at.clauses[name].threshold if name in at.clauses else ABOVE_ALL for name in clauses) if at.clauses else ()
        return ViewPolicy(at.threshold, self.temperature, self.offset, own)


class PointRecord(_Strict):
    """A second operating point of the same scorers."""

    budget: float = Field(gt=0, lt=1)
    near_miss_budget: float = Field(gt=0, lt=1)
    views: dict[ViewName, Thresholds]


class GuardRecord(_Strict):
    """guard.json."""

    schema_version: Literal[1] = 1
    name: str
    constitution: str
    constitution_hash: str
    budget: float = Field(gt=0, lt=1)
    near_miss_budget: float = Field(gt=0, lt=1)
    seed: int
    backbone: str
    backbone_fingerprint: str
    """Of the weights that the probe was trained on; another model is refused."""
    layers: list[int] = Field(min_length=1, max_length=512)
    window: int = Field(default=WINDOW, ge=1, le=MAX_WINDOW)
    ema: int = Field(default=WINDOW, ge=0, le=MAX_WINDOW)
    """Of the probe: `models.probe.Averaging`. Older guards have the defaults."""
    clauses: list[str] = Field(max_length=1_000)
    """Restricted clauses with a head of their own, in the order of the heads."""
    views: dict[ViewName, ViewRecord]
    """The prompt view, and one or both of those that judge a reply."""
    ensemble: EnsembleRecord | None = None
    """None: one linear probe."""
    whole: WholeRecord | None = None
    """None: no sentence encoder."""
    balanced: PointRecord | None = None
    """The more sensitive operating point; older guards have none."""
    n_examples: dict[str, int]
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of every other file."""
