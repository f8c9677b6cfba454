"""The check on new traffic: exact tests against SciPy's, Holm's correction, and a guard that is made to drift."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from charter.constitution import Constitution, parse
from charter.errors import DataError, NoData
from charter.evaluation.drift import ALL, NEAR, Check, Row, against_budgets, as_dict, check, holm, read_traffic
from charter.guard.folder import Guard
from charter.records import Exchange, Turn

YAML = """
name: two-rules
version: 1
purpose: A constitution for tests.
clauses:
  - {id: wolves, side: restricted, title: Wolves, text: Talk of wolves., counterpart: animals, examples: [a]}
  - {id: animals, side: permitted, title: Animals, text: Talk of others., examples: [b]}
  - {id: plants, side: permitted, title: Plants, text: Talk of plants., examples: [c]}
"""


@dataclass
class Budgets:
    """A guard's record as far as the tests of its budgets read it."""

    budget: float
    near_miss_budget: float


@dataclass
class Promise:
    """A guard of which only its budgets are asked."""

    record: Budgets
    constitution: Constitution
    name: str = "g"
    hash: str = "h"

    @property
    def budgets(self) -> tuple[float, float]:
        return self.record.budget, self.record.near_miss_budget


def promise(budget: float, near: float = 0.3) -> Any:
    return Promise(Budgets(budget, near), parse(YAML, "x"))


def flags(flagged: int, n: int) -> list[bool]:
    return [True] * flagged + [False] * (n - flagged)


COUNTS = st.integers(1, 3_000).flatmap(lambda n: st.tuples(st.integers(0, min(n, 60)), st.just(n)))


@given(COUNTS, st.sampled_from([0.001, 0.01, 0.05]))
def test_one_group_is_scipys_exact_test(counts: tuple[int, int], budget: float) -> None:
    flagged, n = counts
    (group,) = against_budgets(promise(budget), {"prompt": {"": flags(flagged, n)}})["prompt"]
    exact = binomtest(flagged, n, budget, alternative="greater")
    assume(abs(exact.pvalue - 0.05) > 1e-9)
    assert group.p == pytest.approx(exact.pvalue, abs=1e-12)
    assert group.p_adjusted == pytest.approx(group.p)
    assert group.bound == pytest.approx(binomtest(flagged, n).proportion_ci(0.90, "exact").high)
    assert (group.rate.value, group.rate.n) == (flagged / n, n)
    assert group.finding == ("broken" if exact.pvalue < 0.05 else "certified" if group.bound <= budget else "too few to tell")
    assert (group.finding == "broken") == ("no longer holds" in group.sentence)
    assert not (group.finding == "broken" and group.bound <= budget)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_his_procedure_step_by_step(p: list[float]) -> None:
    """Reject the smallest below 5 % / m, the next below 5 % / (m - 1), and stop at the first that is not."""
    rejected: set[int] = set()
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if not (len(p) - rank) * p[place] < 0.05:
            break
        rejected.add(place)
    adjusted = holm(p)
    assert {n for n, value in enumerate(adjusted) if value < 0.05} == rejected
    assert all(a >= raw for a, raw in zip(adjusted, p, strict=True))


def test_a_single_bad_slice_breaks_the_budget_and_is_named() -> None:
    found = Check(
        against_budgets(promise(0.01), {"prompt": {"chat": flags(0, 5_000), "code": flags(20, 200)}, "exchange": {"": flags(0, 10)}}), 0
    )
    groups = {g.name: g for g in found.views["prompt"]}
    assert list(groups) == [ALL, "chat", "code"]
    assert (groups[ALL].n, groups[ALL].flagged) == (5_200, 20)
    assert [groups[name].finding for name in groups] == ["certified", "certified", "broken"]
    assert "code: 20 of 200 flagged" in groups["code"].sentence
    assert "p = " in groups["code"].sentence
    assert not found.holds
    (few,) = found.views["exchange"]
    assert "it takes 299 rows without a flag to certify it" in few.sentence


def test_near_misses_have_their_own_budget_and_are_no_ordinary_traffic() -> None:
    slices = {
        "chat": flags(0, 400),
        "permitted:animals": flags(40, 200),
        "permitted:plants": flags(0, 100),
        "restricted:wolves": flags(0, 50),
    }
    found = against_budgets(promise(0.01, 0.3), {"prompt": slices})["prompt"]
    assert [(g.name, g.n, g.flagged, g.budget) for g in found] == [
        (ALL, 500, 0, 0.01), (NEAR, 250, 40, 0.3), ("chat", 400, 0, 0.01), ("permitted:plants", 100, 0, 0.01),
    ]  # fmt: skip
    assert found[1].finding == "certified"


def test_many_slices_at_the_budget_raise_no_false_alarm() -> None:
    """Forty slices, one of them at p = 0.02 as one of fifty will be: nothing is broken, as a test without correction would say."""
    slices = {f"s{n:02}": flags(1, 100) for n in range(39)} | {"unlucky": flags(4, 100)}
    found = Check(against_budgets(promise(0.01), {"prompt": slices}), 0)
    assert min(g.p for g in found.views["prompt"]) < 0.05
    assert found.holds


def test_a_guard_is_tested_on_prompts_and_replies_apart(guard: Guard, tmp_path: Path) -> None:
    """The tiny guard flags wolves: a prompt with a wolf, and a reply with one after a harmless prompt."""
    rows = [
        Row(Exchange("a", (Turn("user", "Tell me about the wolf of the valley, please."),)), "pets"),
        Row(
            Exchange("b", (Turn("user", "What lives here?"), Turn("assistant", "A wolf, wolf, wolf, and the wolf stays for long."))), "pets"
        ),
        Row(Exchange("c", (Turn("user", "Tell me about the goat of the valley, please."),)), "farms"),
        Row(Exchange("d", (Turn("user", "word " * 9_000),)), "farms"),
    ]
    seen: list[int] = []
    found = check(guard, rows, seen.append)
    expected = {
        "prompt": [(ALL, 3, 1), ("farms", 1, 0), ("pets", 2, 1)],
        "exchange": [(ALL, 1, 1)],
    }
    assert {view: [(g.name, g.n, g.flagged) for g in groups] for view, groups in found.views.items()} == expected
    assert (found.too_long, sum(seen)) == (1, 4)
    assert not found.holds  # one of three at a budget of 0.1 %
    told = json.loads(json.dumps(as_dict(guard, found)))
    assert told["holds"] is False
    assert told["views"]["prompt"]["pets"]["flagged"] == 1


def test_no_row_at_all_is_an_error(guard: Guard) -> None:
    with pytest.raises(NoData):
        check(guard, [])


def _file(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SAID = [{"role": "user", "content": "Hello."}]


def test_traffic_is_read_with_its_slice_or_category(tmp_path: Path) -> None:
    file = _file(
        tmp_path / "t.jsonl", {"id": "x", "messages": SAID, "slice": "chat"}, {"messages": SAID, "category": "code", "label": "benign"},
        {"messages": SAID},
    )  # fmt: skip
    assert [(row.exchange.id, row.slice) for row in read_traffic(file)] == [("x", "chat"), ("2", "code"), ("3", None)]


@pytest.mark.parametrize(
    ("row", "mend"),
    [
        ({"messages": SAID, "label": "harmful"}, "is labelled 'harmful'; a budget is checked on harmless traffic only"),
        ({"messages": SAID, "label": "controversial"}, "is labelled 'controversial'"),
        ({"messages": SAID, "slice": 3}, "must be a word"),
        ({"messages": []}, "`messages` must be a list"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
        ([], "a JSON object is expected"),
    ],
)
def test_a_bad_row_is_named(row: object, mend: str, tmp_path: Path) -> None:
    file = _file(tmp_path / "t.jsonl", {"messages": SAID}, row)
    with pytest.raises(DataError, match="t.jsonl:2") as caught:
        list(read_traffic(file))
    assert mend in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        list(read_traffic(tmp_path / "missing.jsonl"))
