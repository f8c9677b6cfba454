"""charter keys: a key is shown once, its hash kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charter.gateway.keys import KeyRing


def charter(*arguments: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-c", "from charter.cli import main; main()", "keys", *arguments]
    return subprocess.run(run, capture_output=True, text=True, env=dict(os.environ), timeout=120)


def test_made_listed_and_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = charter(str(path), "--add", "app", "--requests-per-minute", "60", "--streams", "4")
    assert made.returncode == 0
    secret = made.stdout.strip()
    key = KeyRing(path).find(secret)
    assert key is not None
    assert (key.name, key.requests_per_minute, key.streams, key.max_body) == ("app", 60, 4, None)
    other = json.loads(charter(str(path), "--add", "other", "--json").stdout)
    listed = charter(str(path)).stdout
    assert ["app", "60 requests a minute, 4 at once"] == listed.splitlines()[0].split(maxsplit=1)
    assert secret not in listed + path.read_text()
    assert charter(str(path), "--remove", "app").returncode == 0
    assert KeyRing(path).find(secret) is None
    assert KeyRing(path).find(other["key"]) is not None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the keys can't be read"),
        (["--remove", "nobody"], "the keys can't be read"),
        (["--add", "no spaces, please"], "can't name a key"),
        (["--add", "x" * 65], "can't name a key"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, arguments: list[str], says: str) -> None:
    found = charter(str(tmp_path / "keys.json"), *arguments)
    assert (found.returncode, found.stdout, says in found.stderr) == (2, "", True)
    assert "Traceback" not in found.stderr
    assert list(tmp_path.iterdir()) == []
