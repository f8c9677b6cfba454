from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kitchen import POOLS

from charter.constitution import Constitution
from charter.errors import BudgetExceeded, TeacherError
from charter.llm.cache import Usage
from charter.llm.pool import Budget
from charter.records import read_examples
from charter.scale.ray_engine import LOSSES, RayEngine, cut
from charter.synthesis.build import Options, synthesize
from charter.synthesis.engine import Engine
from charter.synthesis.opening import open_teacher
from charter.synthesis.recorded import RecordedTeacher

FILES = ("examples.parquet", "manifest.json", "constitution.yaml")


def options(**more: Any) -> Options:
    return Options(**{"per_clause": 12, "replies_per_clause": 4, "limit": 4, "without_pools": POOLS, **more})


def run(constitution: Constitution, opening: Any, chosen: Options, out: Path, engine: Engine | None) -> None:
    async def go() -> None:
        async with opening(budget=chosen.budget(), limit=chosen.limit) as teacher:
            await synthesize(constitution, teacher, chosen, out, engine=engine)

    anyio.run(go)


def served(constitution: Constitution, url: str, cache: Path) -> Any:
    return partial(open_teacher, url, constitution, model="m", cache=cache, check=False)


@given(st.lists(st.integers(), max_size=60), st.integers(1, 9))
def test_parts_are_even_and_hold_every_task_once_in_order(tasks: list[int], workers: int) -> None:
    parts = cut(tasks, workers)
    assert [task for part in parts for task in part] == tasks
    assert len({len(part) for part in parts} - {0}) <= 2
    assert all(parts)
    assert max(map(len, parts), default=0) - min(map(len, parts), default=0) <= 1


def test_a_cluster_replays_recordings_to_the_same_bytes(
    two_workers: None, constitution: Constitution, recordings: Path, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def replay(*, budget: Budget, limit: int) -> AsyncIterator[RecordedTeacher]:
        yield RecordedTeacher(constitution, recordings)

    chosen = Options()
    run(constitution, replay, chosen, tmp_path / "here", None)
    run(constitution, replay, chosen, tmp_path / "there", RayEngine(replay, chosen.budget(), 4))
    for name in FILES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert sum(1 for _ in read_examples(tmp_path / "there")) > 1_000


def test_a_cluster_asks_the_same_calls_once_and_writes_the_same_bytes(
    two_workers: None, model_server: Any, constitution: Constitution, tmp_path: Path
) -> None:
    chosen = options()
    run(constitution, served(constitution, model_server.url, tmp_path / "a.sqlite"), chosen, tmp_path / "here", None)
    alone = list(model_server.answered)
    there = served(constitution, model_server.url, tmp_path / "b.sqlite")
    engine = RayEngine(there, chosen.budget(), 4)
    run(constitution, there, chosen, tmp_path / "there", engine)
    assert sorted(model_server.answered[len(alone) :]) == sorted(alone)
    assert engine.usage.made == len(alone)
    assert engine.repeated == 0
    for name in FILES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_cluster_that_does_not_start_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "file").write_text("")
    code = f"from charter.scale.ray_engine import cluster\nwith cluster(address='local', _temp_dir={str(tmp_path / 'file' / 'x')!r}): pass"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.stderr.splitlines()[-1].startswith("charter.errors.TeacherError: the Ray cluster can't be reached (")


def test_no_more_calls_are_in_flight_than_allowed_though_there_are_more_workers(two_workers: None, tmp_path: Path) -> None:
    @asynccontextmanager
    async def nobody(*, budget: Budget, limit: int) -> AsyncIterator[Any]:
        yield SimpleNamespace(usage=Usage(), limit=limit)

    async def calls_at_once(teacher: Any) -> int:
        running = tmp_path / str(os.getpid())
        running.touch()
        await anyio.sleep(0.1)
        others = sum(1 for _ in tmp_path.iterdir())
        running.unlink()
        return int(others * teacher.limit)

    engine = RayEngine(nobody, Budget(), 1)
    assert anyio.run(engine.run, [calls_at_once] * 4) == [1] * 4


def noting(opening: Any, folder: str) -> Callable[..., Any]:
    """An opening that leaves the number of the worker's process in a folder."""

    @asynccontextmanager
    async def noted(*, budget: Budget, limit: int) -> AsyncIterator[Any]:
        from os import getpid
        from pathlib import Path

        Path(folder, str(getpid())).touch()
        async with opening(budget=budget, limit=limit) as teacher:
            yield teacher

    return noted


@pytest.mark.parametrize("after", [5, 40])
def test_a_killed_worker_costs_its_calls_in_flight_and_nothing_else(
    two_workers: None, model_server: Any, constitution: Constitution, tmp_path: Path, after: int
) -> None:
    chosen, limit = options(), 4
    run(constitution, served(constitution, model_server.url, tmp_path / "a.sqlite"), chosen, tmp_path / "here", None)
    alone = len(model_server.answered)

    workers = tmp_path / "workers"
    workers.mkdir()
    killed: list[int] = []

    def kill(number: int) -> None:
        if number == alone + after and not killed:
            killed.append(max((p for p in workers.iterdir()), key=lambda p: p.stat().st_mtime_ns))
            os.kill(int(killed[0].name), signal.SIGKILL)
            time.sleep(0.05)

    model_server.arrived = kill
    there = served(constitution, model_server.url, tmp_path / "b.sqlite")
    engine = RayEngine(noting(there, str(workers)), chosen.budget(), limit)
    run(constitution, there, chosen, tmp_path / "there", engine)
    assert killed
    assert engine.repeated == 1
    assert alone <= model_server.calls - alone <= alone + limit
    for name in FILES:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_the_cap_holds_over_all_workers_and_a_higher_one_goes_on(
    two_workers: None, model_server: Any, constitution: Constitution, tmp_path: Path
) -> None:
    there = served(constitution, model_server.url, tmp_path / "b.sqlite")
    poor = options(max_cost=0.004, price_in=1.0, price_out=1.0)
    with pytest.raises(BudgetExceeded, match=r"of .* done; stopped after [1-9]\d* paid calls at .*--max-cost"):
        run(constitution, there, poor, tmp_path / "out", RayEngine(there, poor.budget(), 4))
    paid = len(model_server.answered)
    assert 0 < paid * 60 / 1e6 <= 0.004
    assert not (tmp_path / "out" / "examples.parquet").exists()
    rich = options(max_cost=1.0, price_in=1.0, price_out=1.0)
    run(constitution, there, rich, tmp_path / "out", RayEngine(there, rich.budget(), 4))
    assert len(set(model_server.answered)) == len(model_server.answered) > paid


def test_a_teacher_out_of_reach_is_one_sentence_from_a_worker_too(two_workers: None, constitution: Constitution, tmp_path: Path) -> None:
    there = partial(served(constitution, "http://127.0.0.1:9/v1", tmp_path / "b.sqlite"))

    @asynccontextmanager
    async def impatient(*, budget: Budget, limit: int) -> AsyncIterator[Any]:
        async with there(budget=budget, limit=limit) as teacher:
            teacher._chat._chat._attempts = 1
            yield teacher

    with pytest.raises(TeacherError, match=r"can't be reached.*is it running") as caught:
        run(constitution, there, options(), tmp_path / "out", RayEngine(impatient, Budget(), 4))
    assert "\n" not in str(caught.value)


def test_a_partition_that_kills_every_worker_ends_the_run(two_workers: None, constitution: Constitution, recordings: Path) -> None:
    async def deadly(teacher: Any) -> None:
        import os

        os._exit(1)

    async def harmless(teacher: Any) -> int:
        return 1

    @asynccontextmanager
    async def replay(*, budget: Budget, limit: int) -> AsyncIterator[RecordedTeacher]:
        yield RecordedTeacher(constitution, recordings)

    engine = RayEngine(replay, Budget(), 4)
    assert anyio.run(engine.run, [harmless] * 20) == [1] * 20
    with pytest.raises(TeacherError, match="died"):
        anyio.run(engine.run, [harmless, deadly])
    assert engine.repeated == LOSSES + 1


def test_without_ray_the_package_to_install_is_named() -> None:
    code = """
import sys
sys.modules["ray"] = None
from charter.errors import MissingExtra
from charter.scale.ray_engine import cluster
try:
    with cluster():
        pass
except MissingExtra as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "charter[ray]" in said
