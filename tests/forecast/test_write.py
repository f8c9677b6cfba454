from __future__ import annotations

import json

import numpy as np
import pytest

from charter.errors import DataError
from charter.forecast.elicitation import Elicitation
from charter.forecast.validation import PowerLaw
from charter.forecast.write import Asked, tell

DATA = Elicitation(PowerLaw().draw(500, np.random.default_rng(0)), "log-probability", None)


@pytest.mark.parametrize("method", ["likelihood", "half-rank", "paper", "gpd"])
def test_every_method_tells_finite_figures_and_leaves_out_a_check_that_it_has_no_rows_for(method: str) -> None:
    told = tell(DATA, Asked((1e4,), method=method))  # type: ignore[arg-type]
    json.dumps(told, allow_nan=False)
    assert told["validation"] is None
    assert told["forecasts"][0]["worst"]["n"] == told["m"] == 500


def test_probabilities_too_small_for_a_float_keep_their_logarithm() -> None:
    far = Elicitation(-8 + np.random.default_rng(0).exponential(0.01, 500), "log-probability", None)
    told = tell(far, Asked((1e4,)))["forecasts"][0]
    assert told["worst"]["value"] == 0
    assert told["worst_log10"]["low"] <= told["worst_log10"]["value"] <= told["worst_log10"]["high"] < -1_000


def test_nothing_asked_and_no_level_are_errors() -> None:
    with pytest.raises(DataError, match="--n 1e6"):
        tell(DATA, Asked(()))
    with pytest.raises(DataError, match="between 0.5 and 1"):
        tell(DATA, Asked((1e5,), level=1.0))
