"""Each cell but those of other readers, on activations in which the label is planted: no model runs."""

import zlib
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ablations
from charter.records import Example, Turn, View, write_examples
from charter.training.activations import Windows
from charter.training.tokens import Tokens
from study.cells import Cell, Skipped, settle
from study.data import Rows, Study
from study.recipes import layer_set

LAYERS, WIDTH = 6, 3
SIGNAL = 4
"""The layer that knows the label."""
FEW = ("rows/1-of-16", "rows/1-of-08")
"""Amounts for which there are too few rows here."""
CELLS = [cell for cell in ablations.all_cells() if cell.group != "encoders" and cell.id not in FEW]


class Planted(Study):
    """Activations made of noise and, in one layer, the label of the exchange's id."""

    @cached_property
    def wide(self) -> Any:
        return SimpleNamespace(layers=tuple(range(1, LAYERS + 1)), width=WIDTH)

    @cached_property
    def narrow(self) -> Any:
        return SimpleNamespace(layers=self.chosen, width=WIDTH)

    def windows(self, rows: Rows, view: View = "prompt", backbone: Any = None) -> Windows:
        return self._states(rows, (backbone or self.wide).layers, 2)[0]

    def tokens(self, rows: Rows, view: View = "prompt") -> Tokens:
        windows, owner = self._states(rows, self.narrow.layers, 6)
        scored = np.arange(len(owner)) % 6 > 0
        return Tokens(np.asarray(windows.store), owner, scored, 0)

    def _states(self, rows: Rows, layers: tuple[int, ...], each: int) -> tuple[Windows, np.ndarray]:
        owner = np.repeat(np.arange(len(rows.exchanges)), each)
        seeds = [zlib.crc32(e.id.encode()) for e in rows.exchanges]
        store = np.concatenate([np.random.default_rng(s).normal(size=(each, len(layers), WIDTH)) for s in seeds])
        if SIGNAL in layers:
            store[:, layers.index(SIGNAL), 0] += 2.0 * rows.labels[owner]
        return Windows(store.reshape(len(owner), -1).astype(np.float16), np.arange(len(owner)), owner), owner


def examples() -> list[Example]:
    """In every split prompts and replies of four clauses and ordinary traffic, a quarter of them disguised."""
    rows = []
    for split in ("train", "dev", "test"):
        disguises = ("leetspeak", "binary") if split == "test" else ("base64", "rot13", "hex")
        for n in range(240):
            restricted, reply = n % 2 == 0, n >= 160
            slice_ = f"restricted:r{n % 3}" if restricted else "chat" if n % 3 else f"permitted:p{n % 4}"
            turns = (
                Turn("user", f"{split} {n} {'locks' if restricted else 'bread'}"),
                *((Turn("assistant", "word " * 4),) if reply else ()),
            )
            family = disguises[n % len(disguises)] if n % 4 > 1 else "plain"
            rows.append(Example(f"{split}-{n}", turns, restricted, restricted if reply else None, "", "permitted", slice_, family,
                                f"{split}-p{n // 2 if reply else n}", "t", 0, split, ""))  # type: ignore[arg-type]  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    write_examples(folder / "examples.parquet", examples())
    return Planted(folder / "examples.parquet", None, None, 0, folder, "embedded", lambda *_: None)


@pytest.mark.parametrize("cell", CELLS, ids=[cell.id for cell in CELLS])
def test_a_cell_measures_what_was_planted(cell: Cell, study: Study, tmp_path: Path) -> None:
    record, _ = settle(cell, study, tmp_path)
    own = record["sets"]["dev" if "dev" in record["sets"] else "planted" if cell.group == "planted" else "replies"]
    assert own["figures"]["auroc"]["low"] <= own["figures"]["auroc"]["value"] <= own["figures"]["auroc"]["high"]
    blind = cell.group == "layers" and SIGNAL not in record["notes"]["layers"]
    if cell.group in ("recipe", "open", "scorers", "views", "permitted") or (cell.group == "layers" and not blind):
        assert own["figures"]["auroc"]["value"] > 0.75
    if blind:
        assert abs(own["figures"]["auroc"]["value"] - 0.5) < 0.2
    if cell.group == "families":
        assert record["sets"]["held-out families"]["n"] > 20


def test_shares_change_what_is_trained_on_and_not_how_much(study: Study, tmp_path: Path) -> None:
    for group in ("permitted", "families"):
        records = [settle(cell, study, tmp_path)[0] for cell in CELLS if cell.group == group]
        assert len({r["n_train"] for r in records}) == 1
        counted = [r["notes"].get("clauses", r["notes"].get("families")) for r in records]
        assert counted == sorted(counted)
        assert counted[0] == 0 < counted[-1]


def test_too_few_rows_skip_a_cell_with_a_word(study: Study, tmp_path: Path) -> None:
    for cell in ablations.all_cells():
        if cell.id in FEW:
            with pytest.raises(Skipped, match="fewer than 10 rows on one side"):
                settle(cell, study, tmp_path)


def test_layer_sets_are_nested_as_their_names_say(study: Study) -> None:
    every, lower, upper, chosen = (set(layer_set(study, name)) for name in ("all", "lower-two-thirds", "upper-of-those", "chosen"))
    assert chosen < upper < lower < every
    assert [len(layer_set(study, sixth)) for sixth in range(1, 7)] == [1] * 6
