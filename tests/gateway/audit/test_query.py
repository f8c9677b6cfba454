"""What is counted equals what a second count over the rows gives; decisions are kept; what is exported can be read again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from tests.gateway.audit.conftest import a_finding

from charter.errors import DataError, NoData
from charter.evaluation.datasets import load_folder
from charter.gateway.audit.finding import Finding
from charter.gateway.audit.query import Chosen, decide, export, queue, summary
from charter.gateway.audit.store import Store, open_store

DAYS = ("2026-11-19", "2026-11-20", "2026-11-21")
TURNS = [{"role": "user", "content": "How do locks work?"}]
found = st.builds(
    lambda day, flagged, clause, action, error, request, score, key: a_finding(
        time=f"{day}T12:00:00.000000+00:00", flagged=flagged, clause=clause if flagged else None, action=action,
        error=None if flagged else error, request=request, score=score, key=key,
    ),
    st.sampled_from(DAYS), st.booleans(), st.sampled_from(["words", "numbers"]), st.sampled_from(["allow", "block"]),
    st.sampled_from([None, None, "it failed"]), st.sampled_from(["r1", "r2", "r3"]), st.floats(0, 1),
    st.sampled_from([None, "app", "other"]),
)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = str(tmp_path / "log.db") if request.param == "sqlite" else request.getfixturevalue("database")
    store = open_store(url, create=True)
    yield store
    store.close()


def counted(rows: list[Finding]) -> dict[str, int]:
    return {
        "verdicts": len(rows), "flagged": sum(r.flagged for r in rows), "blocked": sum(r.flagged and r.action == "block" for r in rows),
        "unscored": sum(r.error is not None for r in rows), "requests": len({r.request for r in rows}),
    }  # fmt: skip


@given(rows=st.lists(found, min_size=1, max_size=30), since=st.sampled_from([None, *DAYS]), until=st.sampled_from([None, *DAYS]))
@settings(max_examples=20)
def test_counts_equal_a_second_count(rows: list[Finding], since: str | None, until: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"{folder}/log.db", create=True)
        store.insert(rows)
        chosen = [r for r in rows if (since or "") <= r.time[:10] <= (until or "9")]
        if not chosen:
            with pytest.raises(NoData):
                summary(store, Chosen(since, until))
            return
        said = summary(store, Chosen(since, until))
        assert {k: said[k] for k in counted(chosen)} == counted(chosen)
        for key, of in (
            ("days", lambda r: r.time[:10]),
            ("clauses", lambda r: r.clause),
            ("guards", lambda r: r.guard_hash),
            ("keys", lambda r: r.key),
        ):
            groups = {of(r) for r in chosen} - {None}
            one = {"days": "day", "clauses": "clause", "guards": "guard_hash", "keys": "key"}[key]
            assert {row[one]: {k: row[k] for k in counted(chosen)} for row in said[key]} == {
                g: counted([r for r in chosen if of(r) == g]) for g in groups
            }
        of_app = [r for r in chosen if r.key == "app"]
        if of_app:
            assert summary(store, Chosen(since, until, key="app"))["verdicts"] == len(of_app)
        assert said["to_review"] == counted(chosen)["flagged"]
        waiting = queue(store, Chosen(since, until), 5)
        assert [w.score for w in waiting] == sorted(r.score for r in chosen if r.flagged)[:5]
        store.close()


def test_decisions_leave_the_queue_and_give_a_share_with_its_interval(store: Store) -> None:
    rows = [a_finding(score=0.9 + n / 100) for n in range(8)]
    store.insert([*rows, a_finding(flagged=False, clause=None)])
    first = queue(store, Chosen(), 3)
    assert [w.id for w in first] == [r.id for r in rows[:3]]
    marks = [(first[0].id, "harmless"), (first[1].id[:16], "restricted"), (first[2].id, "unclear")]
    assert decide(store, marks) == 3
    assert [w.id for w in queue(store, Chosen(), 99)] == [r.id for r in rows[3:]]
    assert decide(store, [(first[1].id, "harmless")]) == 1, "a decision can be changed"
    (clause,) = summary(store, Chosen())["clauses"]
    reviewed = clause["reviewed"]
    second = binomtest(2, 2).proportion_ci(method="exact")
    assert {k: reviewed[k] for k in ("harmless", "restricted", "unclear")} == {"harmless": 2, "restricted": 0, "unclear": 1}
    assert reviewed["share_harmless"] == pytest.approx({"value": 1.0, "low": second.low, "high": second.high, "n": 2})
    assert (clause["flagged"], summary(store, Chosen())["to_review"]) == (8, 5)


@pytest.mark.parametrize(
    ("mark", "mend"),
    [
        (("aaaaaaaa", "wrong"), "harmless, restricted or unclear"), (("nothere0", "harmless"), "no such verdict"), (("aaaa", "harmless"), "first 6"),
        (("aaaaaa", "harmless"), "several"), (("%%%%%%%%", "harmless"), "no id"), (("______", "harmless"), "no id"), (("", "harmless"), "no id"),
    ],
)  # fmt: skip
def test_a_decision_that_fits_nothing_keeps_none(mark: tuple[str, str], mend: str, store: Store) -> None:
    store.insert([a_finding(id="aaaaaaaa"), a_finding(id="aaaaaabb"), a_finding(id="cccccccc")])
    with pytest.raises(DataError, match=mend):
        decide(store, [("cccccccc", "harmless"), mark])
    assert len(queue(store, Chosen(), 99)) == 3


def test_what_people_decided_is_exported_as_labelled_rows(store: Store, tmp_path: Path) -> None:
    reply = [*TURNS, {"role": "assistant", "content": "half a pair \ud800"}]
    rows = {
        "wrong": a_finding(stage="prompt", content=json.dumps(TURNS)), "right": a_finding(content=json.dumps([*TURNS, {"role": "assistant", "content": "A"}])),
        "unclear": a_finding(content=json.dumps(reply)), "undecided": a_finding(content=json.dumps(TURNS)), "bare": a_finding(),
    }  # fmt: skip
    store.insert(list(rows.values()))
    decide(
        store,
        [(rows[name].id, d) for name, d in (("wrong", "harmless"), ("right", "restricted"), ("unclear", "unclear"), ("bare", "harmless"))],
    )
    out = tmp_path / "out" / "rows.jsonl"
    assert export(store, Chosen(), out) == {"written": 2, "without_content": 1}
    read = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert set(read) == {rows["wrong"].id, rows["right"].id}
    expected: dict[str, Any] = {"label": "safe", "kind": "prompt", "category": "words", "side": "permitted", "messages": TURNS}
    assert read[rows["wrong"].id].items() >= expected.items()
    assert (read[rows["right"].id]["label"], read[rows["right"].id]["kind"], read[rows["right"].id]["side"]) == (
        "harmful",
        "response",
        "restricted",
    )
    sets = load_folder(out.parent)
    assert sorted((s.kind, [item.positive for item in s.items]) for s in sets) == [("prompt", [False]), ("response", [True])]


def test_without_content_or_decisions_nothing_is_written(store: Store, tmp_path: Path) -> None:
    bare = a_finding()
    store.insert([bare])
    with pytest.raises(NoData, match="mark some"):
        export(store, Chosen(), tmp_path / "rows.jsonl")
    decide(store, [(bare.id, "harmless")])
    with pytest.raises(NoData, match="--log-content"):
        export(store, Chosen(), tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()
