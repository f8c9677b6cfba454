"""The guards inside the package are named; a folder of that name comes first, and nothing is written into the package."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

import pytest

from charter.constitution import load as load_constitution
from charter.errors import GuardError
from charter.guard import shipped
from charter.guard.folder import read_record
from charter.guard.recalibrate import recalibrate

MOST_BYTES = 12_000_000


def test_a_name_is_a_shipped_guard_unless_a_folder_has_it(tmp_path: Path) -> None:
    assert "general" in shipped.names()
    assert shipped.place(Path("general")) == shipped.SHIPPED / "general"
    assert shipped.place(Path("no-such-guard")) == Path("no-such-guard")
    assert shipped.place(tmp_path / "general") == tmp_path / "general"
    (tmp_path / "general").mkdir()
    with chdir(tmp_path):
        assert shipped.place(Path("general")) == Path("general")


@pytest.mark.parametrize("name", shipped.names())
def test_a_shipped_guard_is_whole_small_and_of_the_shipped_constitution(name: str) -> None:
    folder = shipped.place(Path(name))
    record, _ = read_record(folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) < MOST_BYTES
    assert record.name == name
    assert record.constitution_hash == load_constitution(name).hash
    assert record.balanced is not None
    assert all(view.certified for view in record.views.values())
    for view, point in record.views.items():
        assert record.balanced.views[view].threshold < point.threshold


def test_a_shipped_guard_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(GuardError, match="shipped guard"):
        recalibrate(Path("general"), Path("general"), 0.005)
    with pytest.raises(GuardError, match="shipped guard"):
        recalibrate(Path("general"), shipped.SHIPPED / "general", 0.005)
    changed = recalibrate(Path("general"), tmp_path / "mine", 0.005)
    assert changed.record.budget == 0.005
    assert (tmp_path / "mine" / "guard.json").is_file()
