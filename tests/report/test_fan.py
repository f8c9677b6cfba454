from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from charter.errors import NoData
from charter.forecast.elicitation import Elicitation
from charter.forecast.validation import PowerLaw
from charter.forecast.write import Asked, tell
from charter.report.fan import fan


def test_a_fan_is_one_svg_that_follows_the_page_and_says_what_is_drawn() -> None:
    data = Elicitation(PowerLaw().draw(500, np.random.default_rng(0)), "log-probability", None)
    drawn = fan(tell(data, Asked((1e3, 1e4, 1e5))))
    root = ET.fromstring(drawn)
    assert "95%" in root.attrib["aria-label"]
    assert "largest seen" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "var(--shade)" in drawn
    assert "#00000" not in drawn
    assert drawn == fan(tell(data, Asked((1e3, 1e4, 1e5))))


def test_one_number_of_queries_is_no_fan() -> None:
    data = Elicitation(PowerLaw().draw(500, np.random.default_rng(0)), "log-probability", None)
    with pytest.raises(NoData, match="two numbers"):
        fan(tell(data, Asked((1e5,))))


def test_probabilities_below_the_smallest_float_are_drawn_at_the_floor() -> None:
    data = Elicitation(-7 + np.random.default_rng(0).exponential(0.01, 500), "log-probability", None)
    assert ET.fromstring(fan(tell(data, Asked((1e3, 1e5))))) is not None
