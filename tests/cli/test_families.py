from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from charter.cli.families import EXAMPLE, chosen
from charter.records import read_examples
from charter.synthesis.build import Options
from charter.synthesis.families import DRAWN, FAMILIES, HELD_OUT

CHARTER = str(Path(sys.executable).with_name("charter"))


def charter(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CHARTER, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_every_family_has_a_line_with_an_example_and_an_object(tmp_path: Path) -> None:
    said = charter("families", cwd=tmp_path)
    rows = json.loads(charter("families", "--json", cwd=tmp_path).stdout)
    lines = said.stdout.splitlines()
    assert said.returncode == 0
    assert [row["name"] for row in rows] == list(FAMILIES) == [line.split(" (")[0] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        assert set(row) == {"name", "kind", "description", "invertible", "held_out", "example"}
        assert ("held out" in line) == row["held_out"] == (row["name"] in HELD_OUT)
        assert ("invertible" in line) == row["invertible"]
        assert row["description"] in line
        assert line.isprintable()
        assert (row["example"] is None) == (row["kind"] == "translation")
        inverse = FAMILIES[row["name"]].inverse
        assert inverse is None or inverse(row["example"]).lower() == EXAMPLE.lower()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--family", "bas64"), "no family 'bas64'; the families are plain, base64"),
        (("--family", "json+bas64"), "(in 'json+bas64')"),
        (("--held-out", "letspeak"), "no family 'letspeak'"),
        (("--augment", "1000"), "number of copies"),
        (("--augment", "-1"), "--augment"),
    ],
)
@pytest.mark.parametrize("verb", ["synthesize", "build"])
def test_a_typo_is_told_before_any_work(verb: str, arguments: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    said = charter(verb, "general", "--out", "out", *arguments, cwd=tmp_path)
    assert said.returncode == 2
    assert sentence in said.stderr
    assert "Traceback" not in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_the_named_families_are_drawn_and_the_held_out_ones_for_test_alone(tmp_path: Path) -> None:
    options = ("--family", "rot13", "--family", "fiction:novel+base64", "--held-out", "rot13", "--augment", "0.6", "--per-clause", "1")
    said = charter("synthesize", "bank-assistant", "--out", "out", *options, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    families = Counter((row.family, row.split) for row in read_examples(tmp_path / "out"))
    assert {name for name, _ in families} == {"plain", "turning", "rot13", "fiction:novel+base64"} - (
        {"turning"} - {n for n, _ in families}
    )
    assert {split for name, split in families if name == "rot13"} == {"test"}
    assert {split for name, split in families if "novel" in name} == {"train", "dev", "test"}


def test_choices_become_options() -> None:
    assert chosen(None, None, None) == {}
    assert Options(**chosen(["hex", "hex"], ["none"], 0.5)) == Options(
        families=("hex",), held_out_families=(), augment_rate=0.5, stacks=0.0
    )
    assert Options(**chosen(None, ["hex"], None)).families == DRAWN
