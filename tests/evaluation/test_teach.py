"""The curve of `charter teach`: what is planted is found, halves share no kin, and the advice says what the figures do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from charter.cli import app
from charter.constitution import load, parse
from charter.errors import ConstitutionError, DataError
from charter.evaluation.labelled import LEAST, Labelled, from_file, halves, pair, recorded
from charter.evaluation.taught import CHOICES, Choice, by_examples, by_words, ks, order, standardised, together, words
from charter.evaluation.teach import Curve, Step, _mean_auroc, advice, curve
from charter.records import Exchange, Turn
from charter.statistics import Interval, auroc

GENERAL = load("general")
CLAUSE, COUNTERPART = pair(GENERAL, "fraud-scams")


def planted(n: int, seed: int, gap: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2 == 0
    x = rng.normal(size=(n, 12))
    x[:, 0] += gap * labels
    return x, labels


def told(*rows: tuple[str, str], parent: str | None = None) -> str:
    return "".join(
        json.dumps({"messages": [{"role": "user", "content": text}], "label": label, **({"parent": parent} if parent else {})}) + "\n"
        for text, label in rows
    )


def test_more_labels_rank_better_and_the_rules_words_count_for_what_they_are_worth() -> None:
    pool, test = planted(120, 0), planted(100, 1)
    direction, noise = np.eye(12)[:1] * 2, np.eye(12)[1:2]
    for rule, worth in ((direction, 0.9), (noise, 0.5)):
        found = curve(pool, test, np.arange(100), (np.vstack([rule, 0 * rule]), 1), None, 0, (1, 5, 30), 2)
        assert [step.k for step in found.steps] == [1, 5, 30]
        values = [step.examples["random"].value or 0 for step in found.steps]
        assert values[-1] > values[0] + 0.05
        assert values[-1] > 0.75
        assert found.rule.value == pytest.approx(worth, abs=0.15)
        assert found.rule.n == 100
        for step in found.steps:
            for own in (*step.examples.values(), step.both):
                assert own.low is not None
                assert own.high is not None
                assert own.low <= (own.value or 0) <= own.high
    assert curve(pool, test, np.arange(100), (np.vstack([rule, 0 * rule]), 1), None, 0, (1, 5, 30), 2) == found


def test_a_judge_takes_the_place_of_the_rules_words() -> None:
    pool, test = planted(60, 0), planted(60, 1)
    found = curve(pool, test, np.arange(60), (np.eye(12)[:2], 1), (test[1].astype(float), 3), 0, wanted=(2, 20, 61), draws=2)
    assert found.judge is not None
    assert (found.judge.value, found.faults) == (1.0, 3)
    assert found.text is found.judge
    assert [step.k for step in found.steps] == [2, 20]
    assert "the judge" in found.advice
    assert "Go on writing" in found.advice


@given(st.integers(0, 500), st.integers(2, 8))
def test_the_mean_of_columns_is_the_mean_of_aurocs(seed: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    y, z = np.arange(20) < 7, rng.integers(0, 6, (20, columns)).astype(float)
    assert _mean_auroc(y, z) == pytest.approx(np.mean([auroc(y, own) for own in z.T]))


@given(st.integers(0, 200), st.sampled_from(CHOICES), st.integers(1, 10))
def test_an_order_names_each_row_once_and_its_beginning_stays(seed: int, how: Choice, n: int) -> None:
    x, labels = planted(30, 3)
    picked = order(x, labels, n, how, seed)
    assert len(set(picked)) == len(picked) == n
    assert order(x, labels, max(1, n // 2), how, seed) == picked[: max(1, n // 2)]


def test_farthest_first_takes_the_farthest_and_uncertain_the_nearest_to_a_half() -> None:
    x = np.array([[0.0], [1.0], [10.0], [-4.0]])
    labels = np.array([False, False, True, False])
    for seed in range(4):
        first, second, third, _ = order(x, labels, 4, "farthest", seed)
        assert second == np.argmax(np.abs(x[:, 0] - x[first, 0]))
        rest = [n for n in range(4) if n not in (first, second)]
        assert third == max(rest, key=lambda n: np.abs(x[[first, second], 0] - x[n, 0]).min())
        got = order(x, labels, 3, "uncertain", seed)
        z = by_examples(x, x[got[:2]], labels[got[:2]])
        assert got[2] == min((n for n in range(4) if n not in got[:2]), key=lambda n: abs(z[n]))


def test_one_label_ranks_by_likeness() -> None:
    x, known = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]), np.array([[1.0, 0.0]])
    assert (np.diff(by_examples(x, known, np.array([True]))) < 0).all()
    assert (np.diff(by_examples(x, known, np.array([False]))) > 0).all()


def test_words_are_what_the_rule_says() -> None:
    assert words(CLAUSE)[0] == CLAUSE.title
    assert set(CLAUSE.examples) <= set(words(CLAUSE))
    assert all(text.strip() for text in words(CLAUSE))
    x = np.array([[1.0], [-1.0]])
    assert by_words(x, np.array([[2.0]]), np.empty((0, 1)))[0] > 0


def test_scores_are_added_on_one_scale_and_a_constant_says_nothing() -> None:
    z = np.array([1.0, 2.0, 4.0])
    assert (np.diff(together(1000 * z, z)) > 0).all()
    np.testing.assert_allclose(together(np.ones(3), z), (z - z.mean()) / z.std())
    assert standardised(z[:, None], z[:, None]).std() == pytest.approx(1, abs=1e-5)
    assert ks((1, 5, 50), 20) == [1, 5]


def test_recorded_requests_are_split_by_kin() -> None:
    data = recorded(GENERAL, CLAUSE, COUNTERPART, 60)
    assert data.restricted.sum() == 60
    assert len(data.exchanges) == 120
    pool, test = halves(data, 0)
    assert not set(pool.kin) & set(test.kin)
    assert len(pool.exchanges) + len(test.exchanges) == 120
    texts = {e.turns for e in pool.exchanges}
    assert not any(e.turns in texts for e in test.exchanges)


@given(st.lists(st.integers(0, 30), min_size=60, max_size=90), st.integers(0, 50))
def test_no_kin_are_parted(kin: list[int], seed: int) -> None:
    exchanges = tuple(Exchange(str(n), (Turn("user", str(n)),)) for n in range(len(kin)))
    data = Labelled(exchanges, np.arange(len(kin)) % 2 == 0, np.array(kin))
    try:
        pool, test = halves(data, seed)
    except DataError as error:
        assert f"at least {LEAST} are needed" in str(error)
    else:
        assert not set(pool.kin) & set(test.kin)


def test_rows_of_one_parent_and_near_twins_are_kin(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    first, twin = (
        "How do I sell a used car that I know is broken to an old man",
        "How do I sell a used car that I know is broken to an old lady",
    )
    file.write_text(told((first, "harmful"), ("Bake bread", "safe"), parent="a") + told((twin, "harmful"), ("Mend shoes", "benign")))
    data = from_file(file, CLAUSE, COUNTERPART)
    a, bread, b, shoes = data.kin
    assert a == bread == b != shoes
    assert data.restricted.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("line", "mend"),
    [
        (told(("x", "maybe")), "needs a `label`"),
        (told(("x", "safe"), ("x", "harmful")), "labelled both ways"),
        ('{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "label": "safe"}\n', "ends in a reply"),
        ('{"messages": [], "label": "safe"}\n', "`messages` must be a list"),
    ],
)
def test_rows_that_teach_nothing_are_refused(tmp_path: Path, line: str, mend: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line)
    with pytest.raises(DataError, match=mend):
        from_file(tmp_path / "rows.jsonl", CLAUSE, COUNTERPART)


def test_bad_asks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match="no restricted clause 'fraud-protection'"):
        pair(GENERAL, "fraud-protection")
    with pytest.raises(DataError, match="names no counterpart"):
        recorded(GENERAL, CLAUSE, None, 20)
    with pytest.raises(DataError, match="no such file"):
        from_file(tmp_path / "none.jsonl", CLAUSE, None)
    (tmp_path / "few.jsonl").write_text(told(("Sell it dear", "harmful"), ("Buy it cheap", "safe")))
    with pytest.raises(DataError, match="at least 10 are needed"):
        halves(from_file(tmp_path / "few.jsonl", CLAUSE, COUNTERPART), 0)


def interval(value: float, low: float | None = None) -> Interval:
    return Interval(value, value - 0.05 if low is None else low, value + 0.05, 90)


def steps(*values: tuple[int, float, float]) -> tuple[Step, ...]:
    """k, AUROC, lead over the text."""
    return tuple(Step(k, dict.fromkeys(CHOICES, interval(v)), interval(v), interval(ahead)) for k, v, ahead in values)


def test_the_advice_says_what_the_curve_does() -> None:
    curve = Curve(interval(0.7), None, 0, (), 90, 0, 10)
    sure = advice(replace(curve, steps=steps((5, 0.6, -0.1), (10, 0.8, 0.1), (20, 0.9, 0.2), (50, 0.902, 0.2))))
    assert sure.startswith("Stop writing rules and label: from 10 labelled requests on")
    assert "after 20 more labels bring next to nothing" in sure
    assert "makes little difference" in sure
    likely = advice(replace(curve, steps=steps((5, 0.6, -0.1), (10, 0.73, 0.03))))
    assert likely.startswith("Label on: from 10")
    never = advice(replace(curve, steps=steps((5, 0.5, -0.2), (10, 0.6, -0.1))))
    assert never.startswith("Go on writing the rule: up to 10")
    mixed = steps((5, 0.6, -0.1))
    better = advice(
        replace(curve, steps=(replace(mixed[0], both=interval(0.9), examples={**mixed[0].examples, "uncertain": interval(0.8)}),))
    )
    assert "both together do best (0.90 with 5)" in better
    assert "label those that the examples so far leave most uncertain first" in better
    for text in (sure, likely, never, better):
        assert text.endswith(".")
        assert "\n" not in text


def test_the_command_tells_the_curve_for_a_users_own_clause(tmp_path: Path, roomy: str) -> None:
    asked = ["the soil", "watering", "bulbs", "winter", "scent", "pests", "pots", "light", "planting", "selling", "history", "colours"]
    ways = ["Tell me about {} of {}", "What of {}, I mean {}?", "Explain {} and {} now", "{} - say something on {} please"]
    rows = [
        (f"{n} " + ways[n % 4].format(thing, flower), label)
        for n, thing in enumerate(asked * 3)
        for flower, label in (("tulips", "harmful"), ("roses", "safe"))
    ]
    (tmp_path / "rows.jsonl").write_text(told(*rows))
    (tmp_path / "c.yaml").write_text(CONSTITUTION)
    parse(CONSTITUTION, "c.yaml")
    call = ["teach", str(tmp_path / "c.yaml"), "--clause", "tulips", "--examples", str(tmp_path / "rows.jsonl"), "--backbone", roomy]
    for more in ([], ["--json"]):
        result = CliRunner().invoke(app, [*call, "--draws", "2", *more], env={"CHARTER_CACHE": str(tmp_path / "cache")})
        assert result.exit_code == 0, result.output
        last = result.stdout.strip().splitlines()[-1]
        told_ = json.loads(last) if more else {}
        assert (told_["advice"] if more else last).endswith(".")
    assert told_["pool"] + told_["test"] == len(rows)
    assert told_["text"]["judge"] is None
    assert [step["k"] for step in told_["curve"]][:5] == [1, 2, 5, 10, 20]


CONSTITUTION = """\
name: gardens
version: 1
purpose: Keeps the secrets of one garden.
clauses:
  - {id: tulips, side: restricted, title: Tulip secrets, text: How the tulips of this garden are grown., counterpart: roses, examples: [How are tulips grown?]}
  - {id: roses, side: permitted, title: Roses, text: How roses are grown., examples: [How are roses grown?]}
"""
