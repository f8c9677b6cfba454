"""Constitutions: complaints name file, line, clause and mend; hashes follow the text; two versions are told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.constitution import Change, Clause, Constitution, diff, load, parse, shipped
from charter.errors import ConstitutionError

GOOD = """\
# a comment
name: two-sides
version: 1.2
purpose: >
  For
  tests.
clauses:
  - id: locks
    side: restricted
    title: Opening locks
    text: Ways into a house.
    counterpart: locksmiths
    examples:
      - How do I open it?
  - id: locksmiths
    side: permitted
    title: Locksmiths
    text: What they do.
    examples:
      - "What is a lock: a history?"
      - Who
        are they?
"""


def _complaints(text: str) -> list[str]:
    with pytest.raises(ConstitutionError) as caught:
        parse(text, "rules.yaml")
    return str(caught.value).splitlines()


def test_a_constitution_is_read_whole() -> None:
    constitution = parse(GOOD, "rules.yaml")
    locks = Clause("locks", "restricted", "Opening locks", "Ways into a house.", ("How do I open it?",), "locksmiths")
    locksmiths = Clause("locksmiths", "permitted", "Locksmiths", "What they do.", ("What is a lock: a history?", "Who are they?"))
    assert constitution == Constitution("two-sides", "1.2", "For tests.", (locks, locksmiths), GOOD)
    assert (constitution.restricted, constitution.permitted) == ((locks,), (locksmiths,))
    assert constitution["locks"] is constitution.clauses[0]
    assert constitution.warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "where", "mend"),
    [
        ("  - id: locks\n", "  - id: Locks!\n", "rules.yaml:8: clause 'Locks!'", "lower-case words joined by hyphens"),
        ("  - id: locks\n", "  - id: 7\n", "rules.yaml:8", "lower-case words joined by hyphens"),
        ("id: locksmiths", "id: locks", "rules.yaml:15: clause 'locks'", "taken by the clause in line 8; choose another"),
        ("side: restricted", "side: forbidden", "rules.yaml:8: clause 'locks'", "must be `restricted` or `permitted`"),
        ("title: Locksmiths", "title: ''", "rules.yaml:15: clause 'locksmiths'", "must be a sentence in plain words"),
        ("    text: What they do.\n", "", "rules.yaml:15: clause 'locksmiths'", "`text` must be a sentence"),
        ("      - How do I open it?\n", "", "rules.yaml:8: clause 'locks'", "`examples` must list at least one short request"),
        ("      - How do I open it?\n", "      - How: do I?\n", "rules.yaml:8: clause 'locks'", "quote lines that hold a colon"),
        ("      - How do I open it?\n", "      - ' '\n", "rules.yaml:8: clause 'locks'", "at least one short request"),
        (
            "counterpart: locksmiths",
            "counterpart: nobody",
            "rules.yaml:8: clause 'locks'",
            "'nobody' is not a permitted clause of this file; correct",
        ),
        ("counterpart: locksmiths", "counterpart: locks", "rules.yaml:8: clause 'locks'", "'locks' is not a permitted clause"),
        ("counterpart: locksmiths", "counterpart: [locksmiths]", "rules.yaml:8: clause 'locks'", "names one permitted clause"),
        (
            "    title: Locksmiths\n",
            "    counterpart: locks\n    title: Locksmiths\n",
            "rules.yaml:15: clause 'locksmiths'",
            "belongs on a restricted clause",
        ),
        ("    title: Opening", "    titel: Opening", "rules.yaml:10: clause 'locks'", "unknown key 'titel'; a clause has id, side"),
        ("version: 1.2\n", "verison: 1.2\n", "rules.yaml:3", "unknown key 'verison'; a constitution has name"),
        ("name: two-sides", "name: Two Sides", "rules.yaml:1", "`name` must be lower-case words"),
        ("name: two-sides", "name: 5", "rules.yaml:1", "`name` must be lower-case words"),
        ("side: permitted", "side: restricted", "rules.yaml:8: clause 'locks'", "'locksmiths' is not a permitted clause"),
    ],
)
def test_a_complaint_names_file_line_clause_and_mend(old: str, new: str, where: str, mend: str) -> None:
    assert old in GOOD
    complaints = _complaints(GOOD.replace(old, new, 1))
    assert any(line.startswith(f"{where}: ") and mend in line for line in complaints)


@pytest.mark.parametrize(
    ("text", "where", "mend"),
    [
        ("", "rules.yaml:1", "`charter init` writes a starter"),
        ("just words", "rules.yaml:1", "has the keys name, version, purpose and clauses"),
        ("- a\n- b\n", "rules.yaml:1", "has the keys"),
        ("name: a\n", "rules.yaml:1", "`clauses` must be a list"),
        ("name: a\nclauses: {}\n", "rules.yaml:1", "`clauses` must be a list"),
        ("name: a\nclauses:\n  - words\n", "rules.yaml:3", "a clause has the keys"),
        ("name: a\nclauses: [\n", "rules.yaml:3", "not valid YAML"),
        ("name: a\n\tversion: 1\n", "rules.yaml:2", "not valid YAML"),
        ("name: a\npurpose: 'open\n", "rules.yaml:3", "not valid YAML"),
        ("name: a\nname: b\n", "rules.yaml:2", "duplicate key"),
        ("name: a\n---\nname: b\n", "rules.yaml:2", "not valid YAML"),
        ("name: a\npurpose: \x01\n", "rules.yaml", "not valid YAML"),
        ("name: a\n? [b, c]\n: d\n", "rules.yaml:2", "unknown key"),
        ("name: &n a\npurpose: *n\n", "rules.yaml:2", "aliases and tags are not accepted"),
        ("name: !!python/object/apply:os.getcwd []\n", "rules.yaml:1", "aliases and tags are not accepted"),
        ("purpose: x\nname: !mine a\n", "rules.yaml:2", "aliases and tags are not accepted"),
        ("[" * 900_000, "rules.yaml:1", "nested too deeply"),
        ("name: a\nclauses:\n " + " -" * 30_000, "rules.yaml:3", "nested too deeply"),
    ],
)
def test_what_is_no_constitution_is_told_with_its_line(text: str, where: str, mend: str) -> None:
    complaints = _complaints(text)
    assert any(line.startswith(where) and mend in line for line in complaints)


def test_nested_aliases_are_refused_before_they_unfold() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert _complaints(bomb) == ["rules.yaml:2: YAML aliases and tags are not accepted; write the text out in plain words"]


@pytest.mark.parametrize("side", ["restricted", "permitted"])
def test_one_sided_constitutions_are_refused(side: str) -> None:
    text = (
        GOOD.replace("    counterpart: locksmiths\n", "")
        .replace("side: restricted", f"side: {side}")
        .replace("side: permitted", f"side: {side}")
    )
    assert _complaints(text) == [
        "rules.yaml:1: at least one restricted and one permitted clause are needed; a classifier learns from both sides"
    ]


def test_all_complaints_are_told_at_once_in_lines_of_their_own() -> None:
    text = GOOD.replace("side: restricted", "side: x").replace("title: Locksmiths", "title: []").replace("name: two-sides", "nom: x")
    assert [line.split(": ")[0] for line in _complaints(text)] == ["rules.yaml:2", "rules.yaml:1", "rules.yaml:8", "rules.yaml:15"]


def test_a_missing_counterpart_is_a_warning_not_an_error() -> None:
    constitution = parse(GOOD.replace("    counterpart: locksmiths\n", ""), "rules.yaml")
    (warning,) = constitution.warnings
    assert warning.startswith("rules.yaml:8: clause 'locks': no `counterpart`; name the permitted clause next to it")
    assert constitution["locks"].counterpart is None


def test_files_are_read_and_those_that_cannot_be_are_told_in_one_sentence(tmp_path: Path) -> None:
    good, latin, large, folder = (tmp_path / name for name in ("good.yaml", "latin.yaml", "large.yaml", "folder"))
    good.write_text(GOOD)
    latin.write_bytes(GOOD.replace("tests", "Prüfung").encode("latin-1"))
    large.write_text("#" * 1_000_001)
    folder.mkdir()
    assert load(good) == load(str(good)) == parse(GOOD, str(good))
    for path, mend in (
        (tmp_path / "none.yaml", "there is no such file"), (latin, "save the file as UTF-8"), (large, "holds rules, not data"), (folder, "no such file")
    ):  # fmt: skip
        with pytest.raises(ConstitutionError, match=mend) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_shipped_constitutions() -> None:
    with pytest.raises(ConstitutionError, match="bank-assistant, chemical-weapons, general; `charter init` writes a starter"):
        load("generel")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_constitution_loads_and_each_restricted_clause_has_its_counterpart(name: str) -> None:
    constitution = load(name)
    assert constitution.name == name
    assert constitution.warnings == ()
    permitted = {c.id for c in constitution.permitted}
    assert constitution.restricted
    assert all(c.counterpart in permitted for c in constitution.restricted)
    assert len({c.hash for c in constitution.clauses}) == len(constitution.clauses)


def test_the_shipped_constitutions_are_those_that_the_documents_name() -> None:
    assert shipped() == ["bank-assistant", "chemical-weapons", "general"]
    assert len(load("general").restricted) >= 12


CHANGED: dict[str, Any] = {
    "id": "other", "side": "permitted", "title": "Another title", "text": "Another text.", "examples": ("Another?",), "counterpart": None,
}  # fmt: skip


@pytest.mark.parametrize("field", CHANGED)
def test_a_clauses_hash_changes_with_each_of_its_parts(field: str) -> None:
    clause = parse(GOOD, "x")["locks"]
    assert replace(clause, **{field: CHANGED[field]}).hash != clause.hash
    assert replace(clause).hash == clause.hash


WORDS = st.text("abc", min_size=1, max_size=4)
CLAUSES = st.builds(
    Clause, WORDS, st.sampled_from(["restricted", "permitted"]), WORDS, WORDS, st.lists(WORDS, max_size=3).map(tuple), st.none() | WORDS
)


@settings(max_examples=200)
@given(CLAUSES, CLAUSES)
def test_two_clauses_have_the_same_hash_only_if_they_are_the_same(one: Clause, other: Clause) -> None:
    """Parts that run together, such as examples ("ab", "c") and ("a", "bc"), stay apart."""
    assert (one.hash == other.hash) == (one == other)


@pytest.mark.parametrize(
    "edit",
    [lambda t: t.replace("What they do", "What they did"), lambda t: t.replace("Locksmiths", "Smiths"), lambda t: t.replace("Who", "Why")],
)
def test_a_clauses_hash_does_not_change_with_its_neighbours(edit: Callable[[str], str]) -> None:
    before, after = parse(GOOD, "x"), parse(edit(GOOD), "x")
    assert after["locks"].hash == before["locks"].hash
    assert after["locksmiths"].hash != before["locksmiths"].hash
    assert after.hash != before.hash


def test_comments_layout_version_and_purpose_change_no_hash_but_the_order_of_clauses_does() -> None:
    before = parse(GOOD, "x")
    same = parse(
        GOOD.replace("# a comment", "# another")
        .replace("1.2", "9")
        .replace("  tests.", "  nothing.")
        .replace("text: Ways", "text: >\n      Ways\n     "),
        "x",
    )
    assert same.hash == before.hash
    head, locks, smiths = GOOD.partition("  - id: locks\n")[0], *GOOD.partition("clauses:\n")[2].split("  - id: locksmiths")
    turned = parse(f"{head}  - id: locksmiths{smiths}{locks}", "x")
    assert diff(before, turned) == []
    assert turned.hash != before.hash


def test_a_diff_names_the_clauses_added_removed_and_changed_and_what_changed_in_them() -> None:
    before = parse(GOOD, "x")
    after = parse(GOOD.replace("Opening locks", "Opening doors").replace("How do I", "How can I").replace("locksmiths", "keys"), "x")
    assert diff(before, before) == []
    assert diff(before, after) == [
        Change("locksmiths", "removed"), Change("locks", "changed", ("title", "examples", "counterpart")), Change("keys", "added")
    ]  # fmt: skip
    assert [(c.clause, c.kind) for c in diff(after, before)] == [("keys", "removed"), ("locks", "changed"), ("locksmiths", "added")]


@settings(max_examples=150)
@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text("-:[]{}&*!|>'\"%@`#,? \n\tab\x01\u2028", max_size=6))
def test_any_damage_gives_a_constitution_or_a_complaint_that_names_the_file(at: int, cut: int, junk: str) -> None:
    text = GOOD[:at] + junk + GOOD[at + cut :]
    complaints, constitution = "", None
    try:
        constitution = parse(text, "rules.yaml")
    except ConstitutionError as error:
        complaints = str(error)
    assert (constitution is None) == bool(complaints)
    assert all(line.startswith("rules.yaml:") for line in complaints.splitlines())
    assert constitution is None or (constitution.restricted and constitution.permitted)
