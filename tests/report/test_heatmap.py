from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from charter.evaluation.datasets import Set
from charter.evaluation.run import Results, evaluate
from charter.guard.folder import Guard
from charter.report.heatmap import END, heat_map, merge, pick

Measured = tuple[dict[str, Any], Results]


@given(st.lists(st.tuples(st.sampled_from(["", "a", " b", "\u96ea"]), st.integers(0, 10).map(lambda n: n / 10)), max_size=20))
def test_cells_give_the_text_back_and_stop_once(tokens: list[tuple[str, float]]) -> None:
    texts = (*(t for t, _ in tokens), "")
    p = np.array([*(p for _, p in tokens), 0.0])
    cells = merge(texts, p, threshold=0.7)
    assert "".join(c.text for c in cells) == "".join(texts) + END
    assert max(c.probability for c in cells) == p.max()
    crossings = [n for n, c in enumerate(cells) if c.crossing]
    assert len(crossings) == int(p.max() >= 0.7)
    assert [c.withheld for c in cells] == [bool(crossings) and n >= crossings[0] for n in range(len(cells))]


def test_a_caught_held_out_reply_is_shown_up_to_where_the_guard_stopped(guard: Guard, measured: Measured) -> None:
    heat = heat_map(guard, measured[1])
    assert heat
    assert (heat.set_name, heat.view, heat.clause) == ("heldout_reply", "exchange", "wolves")
    assert heat.before == (("user", "What lives here?"),)
    released = "".join(c.text for c in heat.cells if not c.withheld)
    assert released == "Many things live here, and in the end there comes a"


def test_without_held_out_sets_a_restricted_prompt_is_shown_never_a_reply(guard: Guard, sets: list[Set]) -> None:
    results = evaluate(guard, [replace(sets[0], name="a"), replace(sets[1], name="b")])
    heat = heat_map(guard, results)
    assert heat
    assert (heat.set_name, heat.view, heat.before) == ("a", "prompt", ())
    only_replies = evaluate(guard, [replace(sets[1], name="b")])
    assert pick(only_replies) is None
    assert heat_map(guard, only_replies) is None
