"""The tiny guard of tests/evaluation, measured once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from charter.evaluation.datasets import Set
from charter.evaluation.run import Results
from charter.evaluation.write import measure
from charter.guard.folder import Guard

_spec = importlib.util.spec_from_file_location("evaluation_conftest", Path(__file__).parents[1] / "evaluation" / "conftest.py")
assert _spec
assert _spec.loader
_shared = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shared)

guard_path, guard, sets = _shared.guard_path, _shared.guard, _shared.sets


@pytest.fixture(scope="session")
def measured(guard: Guard, sets: list[Set], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Results]:
    return measure(guard, sets, tmp_path_factory.mktemp("out"), replays=2, command="charter evaluate tiny --data 'a & b'")
