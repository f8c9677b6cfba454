"""What training hands over and a guard folder keeps: the scorers, their operating points, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from charter.models.calibrate import Calibration
from charter.models.cascade import Cascade
from charter.models.recalibrate import DevScores
from charter.models.stage import ALWAYS
from charter.models.value_head import Tuned
from charter.records import View
from charter.statistics import Interval


@dataclass(frozen=True, slots=True)
class Gate:
    """How one view's stage takes part, chosen on the dev split."""

    mix: float
    """Its share of the logit."""
    threshold: float = ALWAYS
    """Logit of the stages before it from which it is asked."""
    read: Interval | None = None
    """Share of the tokens of ordinary dev exchanges that it reads; None where it reads all."""


@dataclass(frozen=True, slots=True)
class Listening:
    """How a sentence encoder takes part in judging prompts, chosen on the dev split (`models.whole`)."""

    mix: float
    """Its share of the logit where a turn ends."""
    lead: float = 0.5
    """Its share of the first impression, which decides whether the probe is asked."""
    threshold: float = ALWAYS
    """The first glance from which it reads a window."""
    read: Interval | None = None
    """Share of its own tokens of ordinary dev exchanges that it reads; None where it reads all."""


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What serving needs for one view, and its evidence."""

    gates: tuple[Gate, ...]
    """Of the probe, and of the value head where there is one."""
    temperature: float
    offset: float
    calibration: Calibration
    dev: DevScores = field(compare=False, repr=False)
    """The dev split's scores as they are served, from which the thresholds can be moved later."""
    whole: Listening | None = None
    """The sentence encoder's part, where there is one and the view is the prompt's."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Scorers ready to serve."""

    cascade: Cascade
    points: dict[View, OperatingPoint]
    budget: float
    near_miss_budget: float
    seed: int
    n_examples: dict[str, int]
    """View and split to the number of examples."""
    rows: dict[View, str]
    """What each view was trained and calibrated on, and the layers chosen on, as a digest."""
    balanced_budget: float | None = None
    """Of the second, more sensitive operating point; None for its default."""
    disagreement: dict[View, dict[str, Interval]] = field(default_factory=dict)
    """Of an ensemble's members on the dev split: view, and harmless or restricted, to the mean standard deviation of their probabilities."""
    head: Tuned | None = field(default=None, compare=False, repr=False)
    """The value head as data, where one was trained."""
