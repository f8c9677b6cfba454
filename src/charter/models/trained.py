"""What training hands over and a guard folder keeps: the scorers, their operating points, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from charter.models.calibrate import Calibration
from charter.models.cascade import Cascade
from charter.models.recalibrate import DevScores
from charter.records import View


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What serving needs for one view, and its evidence."""

    mix: float
    """The probe's share."""
    temperature: float
    offset: float
    calibration: Calibration
    dev: DevScores = field(compare=False, repr=False)
    """The dev split's scores at this mix, from which the thresholds can be moved later."""


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
