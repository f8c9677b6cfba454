"""Every source gives the psi of its definition, and every bad row is one sentence that names its line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gumbel_r

from charter.errors import DataError, NoData
from charter.forecast.elicitation import Elicitation, from_log_p, log_probability, probability, psi_of, read_elicitation


def rows(folder: Path, *found: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in found))
    return path


@given(st.floats(1e-12, 1 - 1e-9))
def test_psi_is_the_quantile_function_of_the_gumbel_distribution(p: float) -> None:
    assert psi_of(math.log(p)) == pytest.approx(gumbel_r.ppf(p), abs=1e-6, rel=1e-9)
    assert probability(psi_of(math.log(p))) == pytest.approx(p, rel=1e-9)


@given(st.floats(-1e6, -1e-9))
def test_log_probabilities_far_below_the_smallest_float_keep_their_place(log_p: float) -> None:
    assert log_probability(psi_of(log_p)) == pytest.approx(log_p, rel=1e-12)


def test_the_four_sources_agree_on_the_same_probability(tmp_path: Path) -> None:
    same = [{"p": 0.25}, {"log_p": math.log(0.25)}, {"hits": 5, "samples": 20}, {"flagged": False, "score": 0.25, "key": "x"}]
    found = [read_elicitation(rows(tmp_path, row)) for row in same]
    assert [f.source for f in found] == ["probability", "log-probability", "sampling", "guard"]
    assert [float(f.psi[0]) for f in found] == pytest.approx([gumbel_r.ppf(0.25)] * 4)


def test_zeros_keep_their_rows_and_flagged_rows_are_zeros(tmp_path: Path) -> None:
    for row in ({"p": 0}, {"log_p": -math.inf}, {"hits": 0, "samples": 9}, {"flagged": True, "score": 0.99}):
        found = read_elicitation(rows(tmp_path, row, {**row}))
        assert (found.m, found.zeros) == (2, 2)


def test_certainty_is_lowered_and_counted(tmp_path: Path) -> None:
    found = read_elicitation(rows(tmp_path, {"hits": 10, "samples": 10}, {"hits": 5, "samples": 10}))
    assert found.certain == 1
    assert probability(found.psi) == pytest.approx([0.95, 0.5])
    assert np.isfinite(read_elicitation(rows(tmp_path, {"p": 1})).psi).all()


def test_the_noise_of_counts_is_the_spread_that_sampling_shows() -> None:
    p, samples = 0.05, np.full(20_000, 400)
    hits = np.random.default_rng(0).binomial(samples, p)
    drawn = from_log_p(np.log(hits / samples), "sampling", samples)
    at_truth = from_log_p(np.log([p]), "sampling", samples[:1]).noise()
    assert at_truth is not None
    assert float(at_truth[0]) == pytest.approx(drawn.psi.std(), rel=0.05)
    assert Elicitation(drawn.psi, "log-probability", None).noise() is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"p": 1.5}, "from 0 to 1"),
        ({"p": True}, "from 0 to 1"),
        ('{"p": NaN}', "from 0 to 1"),
        ({"log_p": 0.1}, "from -inf to 0"),
        ({"log_p": "-3"}, "from -inf to 0"),
        ({"hits": 3, "samples": 2}, "no more hits"),
        ({"hits": 0, "samples": 0}, "at least one sample"),
        ({"hits": 1.0, "samples": 2}, "whole numbers"),
        ({"flagged": 1, "score": 0.5}, "true or false"),
        ({"flagged": False, "score": 2}, "from 0 to 1"),
        ({"q": 1}, "of no source"),
        ({"p": 0.1, "log_p": -1}, "several sources"),
        ("[1]", "object"),
        ("{", "not JSON"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: Any, said: str) -> None:
    for good in ([{"p": 0.5}] if isinstance(row, dict) and "p" in row else []), []:
        with pytest.raises(DataError, match=f"rows.jsonl:{len(good) + 1}.*{said}"):
            read_elicitation(rows(tmp_path, *good, row))


def test_sources_are_not_mixed_and_no_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:2: is a row of source probability"):
        read_elicitation(rows(tmp_path, {"log_p": -1}, {"p": 0.1}))
    with pytest.raises(NoData, match="no row"):
        read_elicitation(rows(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        read_elicitation(tmp_path / "none.jsonl")
