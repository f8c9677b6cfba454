"""A small constitution and its examples, for tests that train."""

from __future__ import annotations

from pathlib import Path

import pytest
from gardens import TEXT, rows

from charter.constitution import Constitution, parse
from charter.records import write_examples, write_text


@pytest.fixture(scope="module")
def constitution() -> Constitution:
    return parse(TEXT, "gardens.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, constitution: Constitution) -> Path:
    """A folder as `charter synthesize` leaves it; caches go beside it."""
    folder = tmp_path_factory.mktemp("gardens")
    write_examples(folder / "examples.parquet", rows(constitution))
    write_text(folder / "constitution.yaml", TEXT)
    return folder
