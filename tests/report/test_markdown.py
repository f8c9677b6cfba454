from __future__ import annotations

import copy
from typing import Any

from charter.evaluation.run import Results
from charter.report.markdown import BEGIN, END, report, with_measured

Measured = tuple[dict[str, Any], Results]


def test_every_set_slice_family_and_clause_has_a_row_and_no_item_is_quoted(measured: Measured) -> None:
    evaluation, results = measured
    text = report(evaluation)
    for part in ("sets", "slices", "families", "clauses", "languages"):
        for name in evaluation[part]:
            assert f"| {name} | {evaluation[part][name]['n']} |" in text
    assert evaluation["command"] in text
    assert "What may not be concluded" in text
    assert not any(item.exchange.turns[-1].content in text for s in results.sets for item in s.items)


def test_tables_have_as_many_cells_as_heads_whatever_names_hold(measured: Measured) -> None:
    evaluation = copy.deepcopy(measured[0])
    evaluation["slices"]["a|b\nc"] = next(iter(evaluation["slices"].values()))
    width = 0
    for line in report(evaluation).split("\n"):
        cells = line.replace("\\|", "").count("|")
        width = width or cells
        assert cells in (0, width)
        width = width if cells else 0


def test_a_card_gets_one_measured_section_however_often_it_is_written(measured: Measured) -> None:
    card = "# Guard\n\nMade from a constitution.\n"
    once = with_measured(card, measured[0])
    assert with_measured(once, measured[0]) == once
    assert once.startswith(card)
    assert once.count(BEGIN) == once.count(END) == 1
