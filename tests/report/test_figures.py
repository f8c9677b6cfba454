from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from charter.evaluation.metrics import of_set
from charter.evaluation.run import Results, SetResult
from charter.report import figures

Measured = tuple[dict[str, Any], Results]
TEXT = "{http://www.w3.org/2000/svg}text"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12).map(lambda n: n / 12)), max_size=40))
def test_the_roc_curve_agrees_with_a_second_source(rows: list[tuple[bool, float]]) -> None:
    y = np.array([True, False, *(y for y, _ in rows)])
    s = np.array([0.5, 0.5, *(s for _, s in rows)])
    false, true = figures.roc(y, s)
    fpr, tpr, _ = roc_curve(y, s, drop_intermediate=False)
    assert np.allclose(false, fpr)
    assert np.allclose(true, tpr)


def texts(svg: str) -> list[str]:
    """All texts of a figure that parses as XML on its own."""
    return [element.text or "" for element in ET.fromstring(svg).iter(TEXT)]


@pytest.mark.parametrize("name", ["plain", "a$b$c", "under_score", "<b>&amp;\"'", "\u96ea\u5c71 \U0001f43a"])
def test_names_are_drawn_as_they_are(measured: Measured, name: str) -> None:
    first = measured[1].sets[0]
    renamed = SetResult(name, first.kind, first.items, first.outcomes)
    assert name in texts(figures.roc_panels([renamed], {name: of_set(renamed, 0)}))
    assert name in texts(figures.distributions([renamed], {"prompt": 0.5, "exchange": 0.5}))
    interval = {"value": 0.1, "low": 0.0, "high": 0.3}
    assert name in texts(figures.intervals({"Group": {name: interval}}, {"Group": 0.001}, "slices", "what"))


def test_ids_of_two_figures_on_one_page_never_meet(measured: Measured) -> None:
    sets = measured[1].sets
    drawn = [
        figures.roc_panels(sets, measured[0]["sets"]),
        figures.distributions(sets, {"prompt": 0.5, "exchange": 0.5}),
        figures.intervals({"g": {"r": {"value": 0.1, "low": 0.0, "high": 0.3}}}, {}, "slices", "what"),
    ]
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in drawn]
    assert all(len(found) == svg.count(' id="') for found, svg in zip(ids, drawn, strict=True))
    assert not (ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2])
    for found, svg in zip(ids, drawn, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg)) <= found


def test_every_row_is_drawn_where_its_value_lies() -> None:
    rows = {"none": 0.0, "quarter": 0.25, "all": 1.0}
    svg = figures.intervals({"g": {k: {"value": v, "low": v, "high": v} for k, v in rows.items()}}, {}, "slices", "what")
    at = [float(x) for x in re.findall(r'<use xlink:href="#[^"]+" x="([\d.]+)" y="[\d.]+" style="fill: var\(--harmless\)', svg)]
    assert len(at) == 3
    # A square-root axis: a quarter lies half way.
    assert at[1] - at[0] == pytest.approx((at[2] - at[0]) / 2, rel=1e-3)
