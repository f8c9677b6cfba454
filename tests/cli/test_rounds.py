"""What `charter build --rounds` says of its rounds."""

from __future__ import annotations

from charter.cli.rounds import line, table
from charter.redteam.heldout import Figures, Report
from charter.redteam.ledger import Attack, Measured, Round
from charter.statistics import Interval, clopper_pearson


def entry(number: int) -> Round:
    figures = Figures(20, 30, clopper_pearson(10 + number, 20), clopper_pearson(9, 20), clopper_pearson(1, 30))
    rise = Interval(0.05 * number, 0.01, 0.09, 50) if number else None
    report = Report(0.4, Interval(0.5 + 0.05 * number, 0.3, 0.7, 50), rise, figures, {"binary": figures, "leetspeak": figures})
    attack = Attack(
        against="a",
        settings="s",
        file="f",
        parents=600,
        missed_plain=3,
        tried=1234,
        got_through=99,
        kept=50,
        added=100,
        seconds=1,
        families={},
    )
    guard = Measured(rows="r", hash="h", threshold=0.6, seconds=1, heldout=report, scores=[0.5])
    return Round(round=number, attack=attack if number else None, guard=guard)


def test_a_round_is_told_in_one_line_with_what_it_rose_by() -> None:
    first, second = line(entry(0)), line(entry(1))
    assert first == "round 0: held-out families: recall 50.0% [30.0, 70.0] at 1 % false positives"
    assert "1,234 disguises of 600 prompts, 99 got through, 50 kept, 100 rows added" in second
    assert "55.0% [30.0, 70.0] at 1 % false positives, +5.0 [+1.0, +9.0] points over round 0" in second
    assert "\n" not in first + second


def test_the_table_has_a_column_a_round_and_a_row_a_family() -> None:
    lines = table([entry(0), entry(1), entry(2)])
    assert "20 restricted and 30 harmless" in lines[0]
    assert lines[1].split() == ["round", "0", "1", "2"]
    assert {"binary", "leetspeak"} <= {text.split()[0] for text in lines[2:]}
    assert len({len(text) for text in lines[1:]}) == 1
    assert "+10.0 [+1.0, +9.0]" in next(text for text in lines if "points" in text)
