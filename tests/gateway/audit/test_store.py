"""SQLite and PostgreSQL keep the same rows, each once, and refuse what is not theirs."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

import pytest
from tests.gateway.audit.conftest import a_finding

from charter.errors import AuditError
from charter.gateway.audit.finding import COLUMNS
from charter.gateway.audit.store import SqliteStore, Store, StoreDown, open_store

SECRET = "quincunx"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "log.db") if request.param == "sqlite" else request.getfixturevalue("database")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, create=True)
    yield store
    store.close()


def test_rows_are_kept_as_they_came_each_once(store: Store, url: str) -> None:
    odd = json.dumps([{"role": "user", "content": "nul \0, half a pair \ud800, 日本, ' \" \\ % ?"}])
    rows = [a_finding(), a_finding(flagged=False, clause=None, position=None, action="allow", content=odd), a_finding(error="it failed")]
    store.insert(rows)
    store.insert([*rows, a_finding(id="more")])
    found = store.rows(f"SELECT {', '.join(COLUMNS)} FROM charter_verdicts WHERE id <> ?", ["more"])
    assert sorted(found) == sorted(astuple(row) for row in rows)
    assert store.rows("SELECT COUNT(*) FROM charter_verdicts") == [(4,)]
    again = open_store(url, create=True)
    assert again.rows("SELECT COUNT(*) FROM charter_verdicts") == [(4,)]
    assert again.rows("SELECT COUNT(*) FROM charter_audit") == [(1,)]
    again.close()


def test_what_is_too_old_goes_with_its_decisions(store: Store) -> None:
    days = [f"2026-01-{day:02}T00:00:00.000000+00:00" for day in range(1, 11)]
    store.insert([a_finding(id=day, time=day) for day in days])
    store.review([(day, "harmless", day) for day in days])
    store.review([(days[-1], "restricted", days[-1])])
    assert store.expire(days[6]) == 6
    assert [row for (row,) in store.rows("SELECT id FROM charter_verdicts ORDER BY id")] == days[6:]
    assert store.rows("SELECT COUNT(*) FROM charter_reviews") == [(4,)]
    assert store.rows("SELECT decision FROM charter_reviews WHERE id = ?", [days[-1]]) == [("restricted",)]


def test_a_row_that_is_refused_takes_its_batch_back_and_the_store_goes_on(store: Store) -> None:
    with pytest.raises(StoreDown):
        store.insert([a_finding(), a_finding(time=None)])
    store.insert([a_finding(id="later")])
    assert store.rows("SELECT id FROM charter_verdicts") == [("later",)]


def test_another_schema_is_refused_with_a_sentence(store: Store, url: str) -> None:
    if isinstance(url, str) and url.startswith("postgresql"):
        store.rows("UPDATE charter_audit SET schema = 0 RETURNING schema")
    else:
        with sqlite3.connect(url) as connection:
            connection.execute("UPDATE charter_audit SET schema = 0")
        connection.close()
    for create in (False, True):
        with pytest.raises(AuditError, match="has schema 0, this version of Charter reads schema 2"):
            open_store(url, create)


@pytest.mark.parametrize("create", [False, True])
def test_a_log_of_before_there_were_keys_gets_the_column_and_keeps_its_rows(create: bool, store: Store, url: str) -> None:
    old = a_finding()
    store.insert([old])
    for statement in ("ALTER TABLE charter_verdicts DROP COLUMN key", "UPDATE charter_audit SET schema = 1"):
        _done(store, statement)
    opened = [open_store(url, create) for _ in range(2)]  # workers that start together
    opened[1].insert([a_finding(id="new", key="app")])
    found = opened[0].rows(f"SELECT {', '.join(COLUMNS)} FROM charter_verdicts WHERE id <> ?", ["new"])
    assert found == [astuple(old)]
    assert opened[0].rows("SELECT id FROM charter_verdicts WHERE key = ?", ["app"]) == [("new",)]
    assert opened[0].rows("SELECT schema FROM charter_audit") == [(2,)]
    for each in opened:
        each.close()


def _done(store: Store, statement: str) -> None:
    """A statement that gives no rows."""
    with suppress(Exception):  # PostgreSQL's client has no rows to fetch then, and has done it
        store.rows(statement)
    if isinstance(store, SqliteStore) and store._connection is not None:
        store._connection.commit()


def test_where_there_is_no_log_none_is_made_by_reading(database: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no such audit log"):
        open_store(str(tmp_path / "log.db"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AuditError, match="holds no audit log"):
        open_store(database)


def test_what_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    other, text = tmp_path / "other.db", tmp_path / "text.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    text.write_text("this is no database at all\n" * 100)
    before = other.read_bytes(), text.read_bytes()
    for path in (other, text, tmp_path):
        with pytest.raises(AuditError, match="audit"):
            open_store(str(path), create=True)
    assert (other.read_bytes(), text.read_bytes()) == before
    with pytest.raises(AuditError, match="mysql://"):
        open_store("mysql://localhost/log", create=True)


def test_a_server_that_is_not_there_is_one_sentence_without_the_password() -> None:
    with pytest.raises(AuditError, match=r"postgresql://127\.0\.0\.1:9/log can't be opened") as told:
        open_store("postgresql://me:hunter2@127.0.0.1:9/log", create=True)
    assert "hunter2" not in str(told.value)


def test_an_sqlite_file_is_readable_by_its_owner_alone_and_forgets_what_was_deleted(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    store = open_store(str(path), create=True)
    store.insert([a_finding(time="2026-01-01", content=SECRET + "x" * 5_000), a_finding()])
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())
    assert any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())
    assert store.expire("2026-01-02") == 1
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_file_that_went_away_is_an_outage_and_no_new_log(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    store = open_store(str(path), create=True)
    store.close()
    path.rename(tmp_path / "away.db")
    with pytest.raises(StoreDown):
        store.insert([a_finding()])
    (tmp_path / "away.db").rename(path)
    store.insert([a_finding()])
    assert store.rows("SELECT COUNT(*) FROM charter_verdicts") == [(1,)]
    store.close()
