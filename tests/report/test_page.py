from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from charter.errors import DataError
from charter.evaluation.datasets import Item, Set
from charter.evaluation.run import Results
from charter.evaluation.write import measure
from charter.guard.folder import Guard
from charter.records import Exchange, Turn
from charter.redteam.agreement import shipped
from charter.redteam.campaign import Attempt, Options, Result
from charter.redteam.judge import Judged
from charter.redteam.questions import Question
from charter.redteam.results import tell
from charter.redteam.target import Answer
from charter.report.filling import interval, rate
from charter.report.markdown import report
from charter.report.page import headline, render, slice_groups
from charter.report.redteam import beside

Measured = tuple[dict[str, Any], Results]
VOID = {"meta", "br", "link", "img"}


class Checker(HTMLParser):
    """Collects links, and checks that every element that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.tables: list[dict[str, int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "xlink:href", "action") and not (v or "").startswith("#")]
        self.outside += [tag] * (tag in ("script", "link", "iframe", "object", "img"))
        if tag == "table":
            self.tables.append({"th": 0})
        if tag == "th":
            self.tables[-1]["th"] += 1
            assert dict(attrs).get("scope"), "a header cell says what it heads"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def page(measured: Measured, guard: Guard, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    render(*measured, guard, path)
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_is_one_well_formed_file_that_loads_nothing(page: str) -> None:
    checker = checked(page)
    assert checker.outside == []
    assert "url(http" not in page
    assert "@import" not in page
    assert all(table["th"] for table in checker.tables)


def test_the_page_says_what_may_not_be_concluded_and_how_to_run_it_again(page: str) -> None:
    for heading in ("What may not be concluded", "What it catches", "What it wrongly refuses", "Operating point", "How to reproduce"):
        assert heading in page
    assert "charter evaluate tiny --data &#39;a &amp; b&#39;" in page
    assert "can&#39;t be certified" in page
    assert "2 (label controversial)" in page


def test_the_headline_stands_with_interval_and_n(page: str, measured: Measured) -> None:
    recall = measured[0]["sets"]["heldout_prompt"]["recall"]
    card = page[page.index("are caught") :][:400]
    assert re.search(rf"{100 * recall['low']:.1f} to {100 * recall['high']:.1f} %.*n = {recall['n']}", card)


def test_the_page_follows_light_dark_and_print(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert page.count("<svg") == 3
    assert not re.search(r"#00000\d", page), "a stand-in colour was left in a figure"
    assert "heldout_prompt</text>" in page


def test_the_caught_reply_is_shown_token_by_token(page: str) -> None:
    tokens = page[page.index('<div class="tokens">') : page.index("</div>", page.index('<div class="tokens">'))]
    assert len(re.findall(r'class="crossing withheld"', tokens)) == 1
    shown = re.sub(r"<[^>]+>", "", tokens)
    assert shown.startswith("Many things live here, and in the end there comes a wolf")
    assert re.search(r"crossing withheld[^>]*> wolf<", tokens)


def test_the_same_evaluation_gives_the_same_bytes(measured: Measured, guard: Guard, page: str, tmp_path: Path) -> None:
    render(*measured, guard, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_markup_in_data_stays_text(guard: Guard, tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script> & wolf wolf wolf"
    sets = [Set("<b>set</b>", "prompt", tuple(Item(Exchange(str(n), (Turn("user", nasty),)), bool(n), "<i>slice</i>") for n in (0, 1)))]
    evaluation, results = measure(guard, sets, tmp_path, command="<u>x</u>")
    render(evaluation, results, guard, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert checked(page).outside == []
    assert not re.search(r"<(script|b>set|i>slice|u>x)", page)
    assert "&lt;i&gt;slice&lt;/i&gt;" in page
    tokens = page[page.index('<div class="tokens">') :]
    assert re.sub(r"<[^>]+>", "", tokens).startswith("&lt;script&gt;alert(1)&lt;/script&gt; &amp; wolf")


@pytest.mark.parametrize("positive", [True, False])
def test_a_set_of_one_class_gives_dashes_not_zeros(guard: Guard, sets: list[Set], positive: bool, tmp_path: Path) -> None:
    one = Set("one", "prompt", tuple(replace(i, family=None, clause=None) for i in sets[0].items if i.positive == positive))
    evaluation, results = measure(guard, [one], tmp_path)
    render(evaluation, results, guard, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    checked(page)
    assert headline(evaluation) is None
    assert "no restricted reply was there to be replayed" in page
    assert ("No harmless item was scored" in page) == positive
    assert ("No restricted exchange that may be shown here was caught" in page) != positive


def test_the_headline_prefers_held_out_sets_then_the_largest_with_both_classes(measured: Measured) -> None:
    evaluation = copy.deepcopy(measured[0])
    found = headline(evaluation)
    assert found
    assert found["name"] == "heldout_prompt"
    both = evaluation["sets"].pop("heldout_prompt")
    evaluation["sets"].pop("heldout_reply")
    evaluation["sets"] |= {
        "small": both,
        "large": {**both, "n": 99},
        "larger": {**both, "n": 999, "auroc": {**both["auroc"], "value": None}},
    }
    found = headline(evaluation)
    assert found
    assert found["name"] == "large"


def test_slices_are_grouped_by_what_a_refusal_means() -> None:
    fpr = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 9}
    names = ["chat", "permitted:animals", "chat (reply)", "restricted:wolves (reply)", "xstest", "public (reply)"]
    groups = slice_groups({"sets": {"xstest": {}, "public": {}}, "slices": {n: {"n": 9, "flagged": 1, "fpr": fpr} for n in names}})
    assert {title: list(group) for title, group in groups.items()} == {
        "Ordinary prompts": ["chat"],
        "Near misses": ["animals"],
        "Sets by others": ["public (reply)", "xstest"],
        "Harmless replies": ["chat"],
        "Replies to restricted prompts": ["wolves"],
    }


def test_a_figure_that_is_absent_reads_as_a_dash() -> None:
    none = {"value": None, "low": None, "high": None, "n": 0}
    assert interval(none) == rate(none) == "\u2013"
    assert "12.5 %" in rate({"value": 0.125, "low": 0.1, "high": 0.2, "n": 8})


def test_many_sets_keep_the_page_to_a_number_of_panels(guard: Guard, measured: Measured, tmp_path: Path) -> None:
    evaluation, results = measured
    names = [f"set{n:02}" for n in range(18)]
    many = replace(results, sets=tuple(replace(results["heldout_prompt"], name=name) for name in names))
    render({**evaluation, "sets": dict.fromkeys(names, evaluation["sets"]["heldout_prompt"])}, many, guard, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The 2 smallest sets are in the table only" in page
    assert "set17</th>" in page


def test_mistakes_are_veiled_until_they_are_opened_and_never_printed(measured: Measured, guard: Guard, tmp_path: Path) -> None:
    evaluation, results = measured
    silent = tuple(
        replace(
            s,
            outcomes=tuple(
                replace(o, verdict=replace(o.verdict, flagged=not i.positive)) for i, o in zip(s.items, s.outcomes, strict=True)
            ),
        )
        for s in results.sets
    )
    render(evaluation, replace(results, sets=silent), guard, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    checked(page)
    assert page.count('<details class="case">') == 16
    assert "Misses: restricted, and passed" in page
    assert "False alarms: harmless, and flagged" in page
    assert re.search(r"summary, \.screen, \.cases \{ display: none", page)


def attacked(guard_hash: str) -> dict[str, Any]:
    """A campaign's report: 77 attempts of one strategy, one of which succeeded."""
    turns = (Turn("user", "?"),)
    rows = [
        Attempt(n, "family:<b>", "family", "<b>", f"q{n}", 0, turns, Answer("x"), Judged("complied" if not n else "blocked", not n))
        for n in range(77)
    ]
    target = {"name": "m", "guard": {"name": "g", "hash": guard_hash}, "upstream": "u", "model": "m"}
    asked = [Question(f"q{n}", turns) for n in range(77)]
    return tell(Result(rows, asked, 0, 0, 0), target, {"grader": "none", "enough": 0.5}, Options(), shipped(), None)


def test_what_other_commands_left_beside_the_page_is_shown(measured: Measured, guard: Guard, tmp_path: Path) -> None:
    interval = {"value": 1e-3, "low": 1e-4, "high": 1e-2, "n": 1000}
    rows = [{"n": n, "worst": interval, "maximum": interval} for n in (1e4, 1e6)]
    told = {"m": 1000, "level": 0.9, "largest": 1e-4, "forecasts": rows, "warnings": ["the tail has not settled"]}
    (tmp_path / "redteam.json").write_text(json.dumps(attacked("another guard")))
    (tmp_path / "forecast.json").write_text(json.dumps(told))
    render(*measured, guard, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    checked(page)
    assert page.count("<svg") == 5
    assert "the tail has not settled" in page
    assert "n = 77" in page
    assert "family:&lt;b&gt;" in page
    assert "not the guard of this report" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_campaign_against_this_guard_has_no_such_caution_and_the_markdown_holds_the_same(measured: Measured, tmp_path: Path) -> None:
    (tmp_path / "redteam.json").write_text(json.dumps(attacked(measured[0]["guard"]["hash"])))
    told = beside(tmp_path, measured[0]["guard"]["hash"])
    text = report(measured[0], told)
    assert "not the guard of this report" not in text
    assert "\n## Red team: m\n" in text
    assert "| `family:<b>` | 1.3 % [" in text
    assert "(n = 77)" in text
    assert beside(tmp_path / "nowhere", "") is None


@pytest.mark.parametrize("off", ["schema", "target", "overall", "strategies", "judge"])
def test_a_redteam_json_of_another_shape_is_named(off: str, tmp_path: Path) -> None:
    (tmp_path / "redteam.json").write_text(json.dumps({**attacked(""), off: 7}))
    with pytest.raises(DataError, match=r"redteam.json: is no report of this version"):
        beside(tmp_path, "")


def test_a_damaged_file_beside_the_page_is_named(measured: Measured, guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "forecast.json").write_text("[1, 2")
    with pytest.raises(DataError, match="forecast.json"):
        render(*measured, guard, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["forecast.json"]


def test_the_peers_table_names_a_harness_for_every_figure(page: str) -> None:
    from charter.report.page import _peers

    peers = _peers()
    assert {row["harness"] for row in peers["rows"]} == set(peers["harnesses"])
    assert all(0 <= row["value"] <= 100 for row in peers["rows"])
    assert "Not a ranking" in page
