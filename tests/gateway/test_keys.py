"""Keys: what the file holds, and limits that hold in every window of a minute."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import DataError
from charter.gateway.keys import LOOK_S, Key, KeyRing, TooMany, Usage, hashed, new_key, read_keys, write_keys


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_file_holds_no_key_and_is_its_owners_alone(tmp_path: Path) -> None:
    path, secret = tmp_path / "keys.json", new_key()
    write_keys(path, [Key(name="app", sha256=hashed(secret))])
    assert secret not in path.read_text()
    assert secret.removeprefix("charter-") not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(secret) > 40


def test_a_key_is_known_by_itself_and_by_nothing_near_it(tmp_path: Path) -> None:
    path, secret = tmp_path / "keys.json", new_key()
    write_keys(path, [Key(name="other", sha256=hashed(new_key())), Key(name="app", sha256=hashed(secret))])
    ring = KeyRing(path)
    found = ring.find(secret)
    assert found is not None
    assert found.name == "app"
    for wrong in ("", secret[:-1], secret + "x", secret.swapcase(), hashed(secret), new_key(), "\udcff", "app"):
        assert ring.find(wrong) is None


@given(st.integers(1, 5), st.lists(st.floats(0, 40), min_size=1, max_size=40))
def test_no_window_of_a_minute_holds_more_than_the_limit_and_waiting_as_told_is_enough(limit: int, gaps: list[float]) -> None:
    key, usage, now = Key(name="k", sha256="0" * 64, requests_per_minute=limit), Usage(), 0.0
    admitted = []
    for gap in gaps:
        now += gap
        try:
            usage.admit(key, now)
            admitted.append(now)
        except TooMany as error:
            assert sum(now - t < 60 for t in admitted) >= limit, "refused without need"
            now += error.retry_after_s + 1e-6
            usage.admit(key, now)
            admitted.append(now)
    assert all(sum(t <= u < t + 60 - 1e-5 for u in admitted) <= limit for t in admitted)


@given(st.integers(1, 4), st.lists(st.booleans(), max_size=40))
def test_so_many_are_open_at_once_and_no_more(limit: int, steps: list[bool]) -> None:
    key, usage, n_open = Key(name="k", sha256="0" * 64, streams=limit), Usage(), 0
    for opens in steps:
        if opens and n_open < limit:
            usage.admit(key, 0.0)
            n_open += 1
        elif opens:
            with pytest.raises(TooMany):
                usage.admit(key, 0.0)
        elif n_open:
            usage.open -= 1
            n_open -= 1
        assert usage.open == n_open <= limit


def test_one_that_fails_is_not_open_any_more_and_one_that_is_refused_never_was(tmp_path: Path) -> None:
    write_keys(tmp_path / "k", [Key(name="k", sha256="0" * 64, streams=1)])
    ring = KeyRing(tmp_path / "k")
    key = read_keys(tmp_path / "k")[0]

    def fails() -> None:
        with ring.using(key):
            with pytest.raises(TooMany), ring.using(key):
                raise AssertionError
            raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            fails()


def test_a_key_that_was_taken_out_stops_working_and_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    path, clock, one, two = tmp_path / "k", Clock(), new_key(), new_key()
    write_keys(path, [Key(name="one", sha256=hashed(one)), Key(name="two", sha256=hashed(two))])
    ring = KeyRing(path, clock)
    write_keys(path, [Key(name="two", sha256=hashed(two))])
    clock.now = LOOK_S
    assert ring.find(one) is None
    assert ring.find(two) is not None
    path.write_text("{")
    clock.now *= 2
    assert ring.find(two) is not None
    path.unlink()
    clock.now *= 2
    assert ring.find(two) is not None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("{", "no file of keys"),
        ("[]", "no file of keys"),
        ('{"schema": 2, "keys": []}', "schema 2"),
        ('{"schema": 1, "keys": []}', "there is no key in it"),
        ('{"schema": 1, "keys": [{"name": "a", "sha256": "plain"}]}', "keys.0.sha256"),
        ('{"schema": 1, "keys": [{"name": "a\\nb", "sha256": "' + "0" * 64 + '"}]}', "keys.0.name"),
        (json.dumps({"schema": 1, "keys": [{"name": "a", "sha256": "0" * 64}] * 2}), "a name stands twice"),
        (json.dumps({"schema": 1, "keys": [{"name": "a", "sha256": "0" * 64, "requests_per_minute": 0}]}), "requests_per_minute"),
        (json.dumps({"schema": 1, "keys": [{"name": "a", "sha256": "0" * 64, "limit": 1}]}), "keys.0.limit"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: str | None, says: str) -> None:
    path = tmp_path / "k"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        KeyRing(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_writing_keeps_no_second_file(tmp_path: Path) -> None:
    write_keys(tmp_path / "deep" / "k", [])
    assert os.listdir(tmp_path / "deep") == ["k"]
