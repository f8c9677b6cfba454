"""A guard folder round-trips, and a damaged or foreign one is refused in one sentence before anything of it is used."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from charter.constitution import load as load_constitution
from charter.constitution import parse
from charter.errors import BackboneError, GuardError
from charter.guard.folder import FILES, load, read_record
from charter.guard.writing import save
from charter.models.cascade import Cascade
from charter.records import Exchange, Turn

ALL = ("guard.json", *FILES)
EXCHANGES = [
    Exchange("a", (Turn("user", "How do locks work? 😀"),)),
    Exchange(
        "b",
        (Turn("system", "Be brief."), Turn("user", "Write code."), Turn("assistant", "```\nx = [1, 2]\n```\nThat is all there is to it.")),
    ),
]


@pytest.fixture
def folder(saved_guard: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(saved_guard, tmp_path / "guard")


def _refused(folder: Path, match: str | None = None) -> None:
    with pytest.raises(GuardError, match=match) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def _record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change guard.json as someone would who knows the format."""
    record = json.loads((folder / "guard.json").read_text())
    change(record)
    (folder / "guard.json").write_text(json.dumps(record))


def _rehash(folder: Path) -> None:
    _record(folder, lambda r: r["files"].update({name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}))


def test_a_guard_read_back_gives_identical_scores_and_verdicts(saved_guard: Path, random_cascade: Cascade) -> None:
    guard = load(saved_guard)
    for (scored, verdict), expected in zip(guard.score(EXCHANGES), random_cascade.batch(EXCHANGES, prompts=False), strict=True):
        assert scored.prompt_texts == expected.prompt_texts
        assert (scored.reply is None) == (expected.reply is None)
        for own, other in ((scored.prompt, expected.prompt), (scored.reply, expected.reply)):
            if own is not None and other is not None:
                np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-5)  # weights laid out otherwise (`models.packed`)
        assert verdict == guard.judge(scored)
        assert verdict.flagged is guard.judge(expected).flagged
        assert 0 < verdict.score < 1


def test_a_guard_keeps_its_constitution_operating_points_and_name(saved_guard: Path) -> None:
    guard = load(saved_guard)
    assert (guard.name, guard.clauses) == ("test-guard", ("locks", "potions"))
    assert guard.constitution == parse((saved_guard / "constitution.yaml").read_text(), "x")
    assert {view: (p.threshold, p.temperature, p.offset) for view, p in guard.policies.items()} == dict.fromkeys(
        ("prompt", "exchange"), (0.9, 1.5, 0.1)
    )
    assert guard.cascade.mix == {"prompt": 0.5, "exchange": 0.6}
    assert guard.hash == hashlib.sha256((saved_guard / "guard.json").read_bytes()).hexdigest()[:16]
    assert {p.name for p in saved_guard.iterdir()} == set(ALL)


def test_a_session_and_the_batch_reach_the_same_verdict(saved_guard: Path) -> None:
    guard = load(saved_guard)
    for exchange, (_, verdict) in zip(EXCHANGES, guard.score(EXCHANGES), strict=True):
        session = guard.open(exchange.prompt)
        if exchange.reply is not None:
            session.push(exchange.reply)
            session.flush()
        streamed = session.prompt_verdict if exchange.reply is None else session.reply_verdict
        assert (streamed.flagged, streamed.clause, streamed.position) == (verdict.flagged, verdict.clause, verdict.position)
        assert guard.clause_scores(session) == session.clause_scores


@pytest.mark.parametrize("name", ALL)
def test_a_missing_file_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink()
    _refused(folder, name)


@settings(max_examples=40)
@given(name=st.sampled_from(FILES), data=st.data())
def test_a_changed_byte_in_any_file_is_refused(
    name: str, data: st.DataObject, saved_guard: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = shutil.copytree(saved_guard, tmp_path_factory.mktemp("byte") / "guard", copy_function=_link)
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / name).unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(GuardError, match="SHA-256 differs"):
        read_record(folder)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("damage", ["empty", "cut", "longer", "noise"])
def test_a_damaged_file_is_refused(name: str, damage: str, folder: Path) -> None:
    content = (folder / name).read_bytes()
    noise = np.random.default_rng(0).bytes(1_000)
    (folder / name).write_bytes({"empty": b"", "cut": content[: len(content) // 2], "longer": content + b"x", "noise": noise}[damage])
    _refused(folder, name)


@pytest.mark.parametrize("name", ALL)
def test_a_link_in_place_of_a_file_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    _refused(folder, name)


@pytest.mark.parametrize("name", ALL)
def test_a_folder_in_place_of_a_file_is_refused(name: str, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    _refused(folder, name)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another schema": lambda r: r.update(schema_version=2),
    "schema as text": lambda r: r.update(schema_version="1.0"),
    "extra key": lambda r: r.update(pickle="x"),
    "extra key inside": lambda r: r["views"]["prompt"].update(code="x"),
    "missing key": lambda r: r.pop("budget"),
    "missing view": lambda r: r["views"].pop("exchange"),
    "unknown view": lambda r: r["views"].update(other=r["views"]["prompt"]),
    "missing file": lambda r: r["files"].pop("card.md"),
    "file elsewhere": lambda r: r["files"].update({"../card.md": "0" * 64}),
    "threshold above one": lambda r: r["views"]["prompt"].update(threshold=1.5),
    "temperature zero": lambda r: r["views"]["prompt"].update(temperature=0),
    "temperature no number": lambda r: r["views"]["prompt"].update(temperature=float("nan")),
    "offset endless": lambda r: r["views"]["prompt"].update(offset=float("inf")),
    "no layers": lambda r: r.update(layers=[]),
    "a clause too many": lambda r: r["clauses"].append("dragons"),
    "a permitted clause": lambda r: r.update(clauses=["locks", "locksmiths"]),
    "another constitution": lambda r: r.update(constitution_hash="0" * 16),
    "a head too few": lambda r: r["clauses"].pop(),
    "a layer too many": lambda r: r.update(layers=[2, 4, 5]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_guard_json_that_does_not_fit_is_refused(change: str, folder: Path) -> None:
    _record(folder, CHANGES[change])
    _refused(folder)


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 1}', b"{" + b" " * 5_000_000 + b"}"])
def test_a_foreign_guard_json_is_refused(content: bytes, folder: Path) -> None:
    (folder / "guard.json").write_bytes(content)
    _refused(folder, r"guard\.json")


def _with_nan(tensors: dict[str, Any]) -> None:
    tensors["prompt.weight"][0, 0] = np.nan


def _with_infinity(tensors: dict[str, Any]) -> None:
    tensors["exchange.bias"][1] = np.inf


def _with_overflow(tensors: dict[str, Any]) -> None:
    tensors["exchange.bias"] = np.array([0, 1e300, 0])


def _with_another_shape(tensors: dict[str, Any]) -> None:
    tensors["prompt.weight"] = tensors["prompt.weight"][:-1, :-1]


def _with_a_shape_turned(tensors: dict[str, Any]) -> None:
    tensors["prompt.weight"] = np.ascontiguousarray(tensors["prompt.weight"].T)


def _without_a_view(tensors: dict[str, Any]) -> None:
    del tensors["exchange.weight"]


@pytest.mark.parametrize("stem", ["probe", "screen"])
@pytest.mark.parametrize("change", [_with_nan, _with_infinity, _with_overflow, _with_another_shape, _with_a_shape_turned, _without_a_view])
def test_weights_that_do_not_fit_are_refused_even_where_the_hashes_agree(
    stem: str, change: Callable[[dict[str, Any]], None], folder: Path
) -> None:
    file = folder / f"{stem}.safetensors"
    tensors = {name: array.copy() for name, array in load_file(file).items()}
    change(tensors)
    save_file(tensors, file)
    _rehash(folder)
    _refused(folder, file.name)


@pytest.mark.parametrize("stem", ["probe", "screen"])
@pytest.mark.parametrize("content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"\x80\x04K\x01.", b"\xff" * 64])
def test_weights_that_are_no_safetensors_are_refused_even_where_the_hashes_agree(stem: str, content: bytes, folder: Path) -> None:
    (folder / f"{stem}.safetensors").write_bytes(content)
    _rehash(folder)
    _refused(folder, f"{stem}.safetensors")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"name: [", b"name: other\n", b"a: &a [x]\nb: *a\n", b"[" * 50_000, b"x: 1\ny: 2\n"])
def test_a_foreign_constitution_is_refused_even_where_the_hashes_agree(content: bytes, folder: Path) -> None:
    (folder / "constitution.yaml").write_bytes(content)
    _rehash(folder)
    _refused(folder, r"constitution\.yaml")


def test_another_valid_constitution_is_refused(folder: Path) -> None:
    (folder / "constitution.yaml").write_text(load_constitution("general").source)
    _rehash(folder)
    _refused(folder, "not the one that the guard was trained on")


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "other"])
def test_what_is_no_guard_is_refused_and_told_how_one_is_made(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("text")
    elif kind != "missing":
        place.mkdir()
    if kind == "other":
        (place / "notes.txt").write_text("mine")
    _refused(place, "charter build")


def test_a_backbone_that_lacks_the_layers_is_refused(folder: Path) -> None:
    _record(folder, lambda r: r.update(layers=[2, 500]))
    with pytest.raises(BackboneError, match="has blocks 1 to 30"):
        load(folder)


def test_a_backbone_of_another_width_is_named(saved_guard: Path, tiny_folder: Path, folder: Path) -> None:
    _record(folder, lambda r: r.update(layers=[1, 2]))
    with pytest.raises(BackboneError, match="is not the model that the guard .* was trained on") as caught:
        load(folder, backbone=str(tiny_folder))
    assert str(tiny_folder) in str(caught.value)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _save_again(folder: Path, saved_guard: Path, tensors: dict[str, dict[str, Any]]) -> None:
    record, _ = read_record(saved_guard)
    save(folder, record, (saved_guard / "constitution.yaml").read_text(), tensors, "# Another card\n")


def test_saving_over_a_foreign_folder_is_refused_and_leaves_it_whole(
    saved_guard: Path, random_tensors: dict[str, Any], tmp_path: Path
) -> None:
    place = tmp_path / "thesis"
    (place / "drafts").mkdir(parents=True)
    (place / "drafts" / "one.txt").write_text("years of work")
    before = _contents(tmp_path)
    with pytest.raises(GuardError, match="is not a guard"):
        _save_again(place, saved_guard, random_tensors)
    assert _contents(tmp_path) == before


def test_saving_over_a_file_is_refused_and_leaves_it_whole(saved_guard: Path, random_tensors: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "thesis.txt"
    place.write_text("years of work")
    with pytest.raises(GuardError, match="is not a guard"):
        _save_again(place, saved_guard, random_tensors)
    assert _contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_saving_over_a_guard_or_an_empty_folder_replaces_it_and_leaves_nothing_beside(
    folder: Path, saved_guard: Path, random_tensors: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for place in (folder, tmp_path / "empty", tmp_path / "deep" / "new"):
        _save_again(place, saved_guard, random_tensors)
        assert load(place).name == "test-guard"
        assert (place / "card.md").read_text() == "# Another card\n"
        assert {p.name for p in place.iterdir()} == set(ALL)
    assert {p.name for p in tmp_path.iterdir()} == {"guard", "empty", "deep"}


def test_a_save_that_fails_leaves_the_older_guard_and_nothing_beside_it(folder: Path, saved_guard: Path, tmp_path: Path) -> None:
    before = _contents(tmp_path)
    with pytest.raises(FileNotFoundError):
        _save_again(folder, saved_guard, {"probe": {"prompt.weight": np.zeros(3)}})
    assert _contents(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"guard"}


def test_saving_through_a_link_replaces_what_it_points_to(
    folder: Path, saved_guard: Path, random_tensors: dict[str, Any], tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    _save_again(link, saved_guard, random_tensors)
    assert link.is_symlink()
    assert (folder / "card.md").read_text() == "# Another card\n"
    assert {p.name for p in tmp_path.iterdir()} == {"guard", "link"}


def test_nothing_in_a_guard_folder_is_a_pickle(saved_guard: Path) -> None:
    for path in saved_guard.iterdir():
        assert path.suffix in {".json", ".yaml", ".md", ".safetensors"}
        assert not path.read_bytes().startswith((b"\x80", b"PK"))
