from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from charter.errors import DataError, NoData
from charter.evaluation.datasets import Item, Set
from charter.evaluation.run import TOO_LONG, evaluate
from charter.guard.folder import Guard
from charter.records import Exchange, Turn


def test_results_come_back_in_order_and_equal_scoring_one_by_one(guard: Guard, sets: list[Set]) -> None:
    results = evaluate(guard, sets)
    for s, result in zip(sets, results.sets, strict=True):
        assert result.items == s.items
        for item, outcome in list(zip(s.items, result.outcomes, strict=True))[::3]:
            (scored,) = guard.cascade.batch([item.exchange])
            logits = scored.logits(s.view)
            assert logits is not None
            assert outcome.tokens == len(logits)
            assert outcome.verdict.score == pytest.approx(guard.policies[s.view].probability(logits[:, 0]).max(), abs=1e-3)
            assert outcome.verdict.flagged == item.positive
            assert outcome.verdict.clause == item.clause


def test_a_killed_run_scores_only_what_is_missing(guard: Guard, sets: list[Set], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    first = evaluate(guard, sets, scores=path)
    lines = path.read_bytes().splitlines(keepends=True)
    # A kill in the middle of a line, and a mark on a line that was kept: whoever reads it back has not scored it again.
    marked = {**json.loads(lines[0]), "score": 0.123456}
    path.write_bytes(json.dumps(marked).encode() + b"\n" + b"".join(lines[1:5]) + lines[5][:20])
    again = evaluate(guard, sets, scores=path)
    scores = [o.verdict.score for s in again.sets for o in s.outcomes]
    assert scores.count(0.123456) == 1
    assert len(path.read_bytes().splitlines()) == len(lines)
    for old, new in zip((o for s in first.sets for o in s.outcomes), (o for s in again.sets for o in s.outcomes), strict=True):
        assert new.verdict.score in (pytest.approx(old.verdict.score, abs=1e-3), 0.123456)


def test_scores_of_another_guard_are_not_taken_over(guard: Guard, sets: list[Set], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    evaluate(guard, sets[:1], scores=path)
    n = len(path.read_bytes().splitlines())
    evaluate(replace(guard, hash="another"), sets[:1], scores=path)
    assert len(path.read_bytes().splitlines()) == 2 * n


def test_equal_texts_are_scored_once_and_progress_counts_every_row(guard: Guard, sets: list[Set], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    done: list[int] = []
    item = sets[0].items[0]
    results = evaluate(guard, [Set("twice", "prompt", (item, item, sets[0].items[1]))], progress=done.append, scores=path)
    assert len(path.read_bytes().splitlines()) == 2
    assert results["twice"].outcomes[0] == results["twice"].outcomes[1]
    assert sum(done) == 3


def test_the_view_is_part_of_the_key(guard: Guard, sets: list[Set], tmp_path: Path) -> None:
    turns = sets[1].items[0].exchange.turns
    prompt = Item(Exchange("p", turns[:1]), False, "s")
    evaluate(guard, [Set("a", "prompt", (prompt,)), Set("b", "response", (sets[1].items[0],))], scores=tmp_path / "s.jsonl")
    assert len({json.loads(line)["key"] for line in (tmp_path / "s.jsonl").read_text().splitlines()}) == 2


def test_a_text_longer_than_can_be_scored_is_counted_not_cut(guard: Guard, sets: list[Set]) -> None:
    long = Item(Exchange("long", (Turn("user", "word " * (guard.cascade.longest + 1)),)), False, "s")
    results = evaluate(guard, [Set("a", "prompt", (long, sets[0].items[0]), {"label x": 1})])
    assert results.left_out == {"a": {"label x": 1, TOO_LONG: 1}}
    assert results["a"].items == (sets[0].items[0],)


def test_nothing_to_score_and_twin_names_are_errors(guard: Guard, sets: list[Set]) -> None:
    with pytest.raises(NoData, match="no row of the data can be scored"):
        evaluate(guard, [Set("a", "refusal", (), {"kind refusal": 3})])
    with pytest.raises(DataError, match="two sets are named 'heldout_prompt'"):
        evaluate(guard, [sets[0], sets[0]])


def test_a_file_that_holds_no_scores_is_refused_by_line(guard: Guard, sets: list[Set], tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"scores\.jsonl:1: not a line of scores"):
        evaluate(guard, sets, scores=path)
