"""A guard that is put in another's place is taken up by itself; a damaged one is not, and the one after it is."""

from __future__ import annotations

from pathlib import Path

import httpx2
from apart import Guard
from tests.gateway.conftest import Scripted, serving
from waiting import until

from charter.gateway.app import create_app
from charter.gateway.settings import Settings
from charter.gateway.watch import Watch


def put(file: Path, text: str) -> None:
    """As a guard's folder is written: to the side, then renamed."""
    file.with_suffix(".new").write_text(text)
    file.with_suffix(".new").rename(file)


def test_a_file_that_is_gone_for_a_moment_has_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "guard"
    put(file, "first")
    watch = Watch(file)
    assert not watch.changed()
    file.unlink()
    assert not watch.changed()
    put(file, "second")
    assert (watch.changed(), watch.changed()) == (True, False)


def test_a_changed_guard_is_taken_up_and_a_damaged_one_is_not(upstream: Scripted, tmp_path: Path) -> None:
    file = tmp_path / "guard"
    put(file, "first zyzzyva")
    tried: list[str] = []

    def load() -> Guard:
        tried.append(file.read_text())
        return Guard(file)

    app = create_app(Guard(file), Settings(upstream.url), reload=load, watch=Watch(file))  # type: ignore[arg-type, return-value]
    with serving(app) as url, httpx2.Client(base_url=url, trust_env=False) as http:

        def serves(name: str) -> bool:
            return bool(http.get("/healthz").json()["guard"]["hash"] == name)

        assert serves("first")
        put(file, "damaged x")
        until(lambda: tried == ["damaged x"])
        put(file, "second harmless")
        until(lambda: serves("second"))
        assert tried == ["damaged x", "second harmless"]
