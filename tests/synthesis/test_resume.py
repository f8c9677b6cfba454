from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from kitchen import POOLS

from charter.constitution import Constitution, parse
from charter.errors import BudgetExceeded, DataError, TeacherError
from charter.synthesis.build import Options, plan, synthesize
from charter.synthesis.language import LanguageTeacher
from charter.synthesis.manifest import Manifest
from charter.synthesis.opening import open_teacher

RUN = """
import sys
from pathlib import Path
import anyio
from charter.constitution import parse
from charter.synthesis.build import Options, synthesize
from charter.synthesis.opening import open_teacher

async def run(source, url, cache, out, pools):
    constitution, options = parse(Path(source).read_text(), source), Options(per_clause=12, replies_per_clause=4, limit=3, without_pools=tuple(pools.split()))
    async with open_teacher(url, constitution, options.budget(), model="m", cache=Path(cache)) as teacher:
        await synthesize(constitution, teacher, options, Path(out))

anyio.run(run, *sys.argv[1:])
"""


def run(constitution: Constitution, url: str, folder: Path, out: str = "out", **options: Any) -> Manifest:
    chosen = Options(**{"per_clause": 12, "replies_per_clause": 4, "limit": 3, "without_pools": POOLS, **options})

    async def go() -> Manifest:
        async with open_teacher(url, constitution, chosen.budget(), model="m", cache=folder / "cache.sqlite") as teacher:
            return await synthesize(constitution, teacher, chosen, folder / out)

    return anyio.run(go)


def written(model_server: Any) -> list[str]:
    """The calls that wrote or sorted something; each start of a teacher also asks once whether the server is there."""
    return [body for body in model_server.answered if '"content": "Hello"' not in body]


def test_a_run_killed_several_times_goes_on_without_repeating_a_call(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    source = tmp_path / "kitchen.yaml"
    source.write_text(constitution.source)
    arguments = [str(source), model_server.url, str(tmp_path / "cache.sqlite"), str(tmp_path / "out"), " ".join(POOLS)]
    for moment in (40, 95):  # in the prompts, and in the opinions
        model_server.silent_after = moment
        process = subprocess.Popen([sys.executable, "-c", RUN, *arguments])
        deadline = time.monotonic() + 60
        while len(model_server.answered) < moment and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.5)  # what was answered reaches the cache; three more calls hang
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(model_server.answered) == moment
        assert not (tmp_path / "out" / "examples.parquet").exists()
    before = written(model_server)

    model_server.silent_after = None
    run(constitution, model_server.url, tmp_path)
    after = written(model_server)
    assert len(after) > len(before)
    assert len(set(after)) == len(after)

    other = tmp_path / "uninterrupted"
    run(constitution, model_server.url, other)
    assert len(written(model_server)) == 2 * len(after)
    assert (tmp_path / "out" / "examples.parquet").read_bytes() == (other / "out" / "examples.parquet").read_bytes()


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    run(constitution, model_server.url, tmp_path)
    calls = written(model_server)
    run(constitution, model_server.url, tmp_path, out="again")
    assert written(model_server) == calls
    for name in ("examples.parquet", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_an_edited_clause_is_the_only_one_written_anew(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    run(constitution, model_server.url, tmp_path)
    calls = written(model_server)
    edited = parse(constitution.source.replace("How long does an egg boil?", "How long does a potato boil?"), "kitchen.yaml")
    run(edited, model_server.url, tmp_path)
    fresh = written(model_server)[len(calls) :]
    assert fresh
    assert not any("cellar" in body.lower() or "Wine at" in body for body in fresh)


def test_the_cost_cap_stops_the_run_and_a_higher_one_goes_on(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    prices = {"price_in": 1.0, "price_out": 1.0}
    with pytest.raises(BudgetExceeded, match=r"prompts: \d of 3 done; stopped after [1-9]\d* paid calls at 0\.00\d+ of .*--max-cost"):
        run(constitution, model_server.url, tmp_path, max_cost=0.001, **prices)
    assert not (tmp_path / "out").exists()
    calls = written(model_server)
    assert 0 < len(calls) * 60 / 1e6 <= 0.001
    run(constitution, model_server.url, tmp_path, max_cost=1.0, **prices)
    assert len(set(written(model_server))) == len(written(model_server)) > len(calls)


@pytest.mark.parametrize("options", [{"per_clause": 12, "replies_per_clause": 4}, {"per_clause": 3, "replies_per_clause": None}])
def test_the_plan_is_never_less_than_what_the_run_asks(
    model_server: Any, constitution: Constitution, tmp_path: Path, options: dict[str, Any]
) -> None:
    class Nobody:
        model = "m"

        async def complete(self, request: object) -> Any:
            raise AssertionError

    run(constitution, model_server.url, tmp_path, **options)
    expected = plan(constitution, LanguageTeacher(Nobody(), constitution), Options(**options, price_out=1.0))
    assert len(written(model_server)) <= expected.calls
    assert expected.cost == expected.tokens_out / 1e6 > 0


def test_only_some_prompts_get_replies_where_the_options_leave_it_to_the_teacher(
    model_server: Any, constitution: Constitution, tmp_path: Path
) -> None:
    run(constitution, model_server.url, tmp_path, replies_per_clause=None)
    replies = [body for body in written(model_server) if '"max_tokens": 70' in body]
    assert len(replies) == 8 * (2 + 1 + 1)


def test_the_yield_of_every_stage_is_told(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    manifest = run(constitution, model_server.url, tmp_path)
    label = next(stage for stage in manifest.stages if stage.name == "label")
    assert label.dropped["nearer to the counterpart"] > 0
    assert label.replies["answer"] > 0
    assert manifest.topics["cellar"] > 3
    assert "nearer to the counterpart" in "\n".join(manifest.lines())


@pytest.mark.parametrize(
    ("teacher", "model", "sentence"),
    [
        ("http://127.0.0.1:9/v1", "m", "can't be reached"),
        ("http://127.0.0.1:9/v1", None, "--teacher-model"),
        ("oracle", None, "no teacher 'oracle'"),
        ("recorded", None, "no recorded generations"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_told_before_anything_starts(
    constitution: Constitution, tmp_path: Path, teacher: str, model: str | None, sentence: str
) -> None:
    async def go() -> None:
        async with open_teacher(teacher, constitution, Options().budget(), model=model, cache=tmp_path / "c"):
            raise AssertionError

    with pytest.raises(TeacherError, match=sentence):
        anyio.run(go)


def test_a_damaged_cache_is_told(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_text("no database " * 100)
    with pytest.raises(DataError, match="damaged"):
        run(constitution, model_server.url, tmp_path)
