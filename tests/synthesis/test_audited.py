"""What people decided in an audit log becomes training data: their label, the right clause, and no row that calibrates or tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.constitution import Constitution
from charter.errors import DataError
from charter.gateway.audit import query
from charter.gateway.audit.finding import Finding
from charter.gateway.audit.store import open_store
from charter.records import Example, read_examples
from charter.synthesis.audited import read_audited
from charter.synthesis.build import Options, synthesize
from charter.synthesis.manifest import Manifest
from charter.synthesis.recorded import RecordedTeacher
from charter.synthesis.split import split_of


def row(text: str, side: str, category: str, reply: str | None = None, **more: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": text}, *([{"role": "assistant", "content": reply}] if reply else [])]
    return {
        "id": "x",
        "messages": turns,
        "category": category,
        "kind": "response" if reply else "prompt",
        "side": side,
        "guard_hash": "abc",
        **more,
    }


def build(constitution: Constitution, recordings: Path, out: Path, *rows: dict[str, Any]) -> tuple[list[Example], Manifest]:
    path = out.parent / f"{out.name}.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    teacher = RecordedTeacher(constitution, recordings)
    manifest = anyio.run(lambda: synthesize(constitution, teacher, Options(), out, audited=[path] if rows else []))
    return list(read_examples(out)), manifest


def pair(constitution: Constitution) -> tuple[str, str]:
    """A restricted clause and its counterpart."""
    clause = next(c for c in constitution.restricted if c.counterpart)
    return clause.id, str(clause.counterpart)


def test_every_decision_is_filed_under_its_clause_and_trains(constitution: Constitution, recordings: Path, tmp_path: Path) -> None:
    """Among them are all the prompts that are there already: those calibrate or test, or would stand twice."""
    fired, near = pair(constitution)
    before, _ = build(constitution, recordings, tmp_path / "before")
    plain = [r for r in before if r.family == "plain" and r.reply_restricted is None and len(r.turns) == 1]
    again = [row(r.turns[0].content, "permitted", fired) for r in plain]
    texts = [f"my gateway number {n} refused to tell me about rubber ducks in pond {n}" for n in range(30)]
    rows, manifest = build(
        constitution, recordings, tmp_path / "after", *(row(t, "permitted", fired) for t in texts), row("a dreadful wish of mine", "restricted", fired),
        row("what of the weather", "permitted", fired, "It rains over the whole valley."), row("and the rest", "restricted", fired, "Dreadful words, all of them."),
        row(texts[0], "permitted", fired), *again,
    )  # fmt: skip
    mine = [r for r in rows if r.teacher == "audit:abc"]
    assert [r for r in rows if r.teacher != "audit:abc"] == before
    assert {r.split for r in mine} == {"train"}
    assert {(r.clause, r.side, r.slice) for r in mine if r.turns[0].content in texts} == {(near, "permitted", f"permitted:{near}")}
    assert all(not r.prompt_restricted and r.reply_restricted is None for r in mine if r.turns[0].content in texts)
    others = {r.turns[-1].content: (r.clause, r.prompt_restricted, r.reply_restricted) for r in mine if r.turns[0].content not in texts}
    assert others == {
        "a dreadful wish of mine": (fired, True, None), "It rains over the whole valley.": (near, False, False),
        "Dreadful words, all of them.": (fired, False, True),
    }  # fmt: skip
    assert len(mine) == 33
    assert len({r.id for r in rows}) == len(rows)
    stage = next(s for s in manifest.stages if s.name == "audit")
    assert (stage.made, stage.kept) == (34 + len(again), 33)
    assert {r.split for r in plain} > {"train"}, "the test tries all splits"
    assert set(stage.dropped) == {"in an excluded set", "exact duplicate"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"side": "left"}, "no row of an audit log's export"),
        ({"kind": "thought"}, "no row of an audit log's export"),
        ({"messages": "hello"}, "messages"),
        ({"category": "gone"}, "1 clause is not in the constitution"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "1 does not end in a prompt and its reply"),
        ({"kind": "response"}, "1 does not end in a prompt and its reply"),
    ],
)  # fmt: skip
def test_rows_of_another_kind_are_one_sentence_and_nothing_is_written(
    constitution: Constitution, recordings: Path, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    fired, _ = pair(constitution)
    with pytest.raises(DataError, match=says) as caught:
        build(constitution, recordings, tmp_path / "out", row("hello", "permitted", fired) | change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_export_itself_is_what_is_read(constitution: Constitution, tmp_path: Path) -> None:
    fired, near = pair(constitution)
    store = open_store(str(tmp_path / "log.db"), create=True)
    content = json.dumps([{"role": "user", "content": "where do the ducks of the city go in the winter"}])
    common = {
        "request": "r",
        "surface": "/v1/chat/completions",
        "stage": "prompt",
        "choice": 0,
        "guard": "g",
        "guard_hash": "abc",
        "mode": "enforce",
    }
    found = Finding(**common, id="a" * 32, time="2026-11-21T00:00:00+00:00", flagged=True, score=0.9, clause=fired, position=1, action="block",
                    error=None, latency_ms=1.0, content=content)  # type: ignore[arg-type]  # fmt: skip
    store.insert([found])
    query.decide(store, [("aaaaaaaa", "harmless")])
    query.export(store, query.Chosen(), tmp_path / "export.jsonl")
    store.close()
    (item,) = read_audited([tmp_path / "export.jsonl"], constitution).kept
    assert (item.clause, item.side, item.teacher, split_of(item.group), item.turns[0].content[:5]) == (
        near,
        "permitted",
        "audit:abc",
        "train",
        "where",
    )
