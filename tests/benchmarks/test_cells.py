import json
from pathlib import Path

import numpy as np
import pytest

from charter.errors import DataError
from charter.records import Example, Turn, write_examples
from charter.statistics import auroc, recall_at_fpr
from study.cells import VERSION, Cell, Outcome, Skipped, difference, measured, settle
from study.data import LEAST, Study


def example(n: int, split: str = "train", restricted: bool = False, parent: str | None = None) -> Example:
    slice_ = "restricted:a" if restricted else "permitted:b" if n % 4 == 1 else "chat"
    return Example(
        f"{split}-{n}",
        (Turn("user", f"text {n}"),),
        restricted,
        None,
        "",
        "permitted",
        slice_,
        "plain",
        parent or f"p{n}",
        "t",
        0,
        split,
        "",
    )  # type: ignore[arg-type]


def study(folder: Path, limit: int | None = None, n: int = 200, seed: int = 0) -> Study:
    """Over examples two of which share a parent each; no model is ever loaded."""
    file = folder / "examples.parquet"
    if not file.is_file():
        rows = [example(k, split, k % 2 == 0, f"{split}-p{k // 4}") for split in ("train", "dev") for k in range(n)]
        write_examples(file, rows)
    return Study(file, None, limit, seed, folder / "cache", "embedded", lambda *_: None)


def counted(calls: list[int], scores: np.ndarray) -> Cell:
    def run(study: Study) -> Outcome:
        calls.append(1)
        return Outcome(measured(study.dev, scores), 7, {"penalty": 0.1})

    return Cell("recipe", "softmax-1", run)


def test_a_cell_that_is_there_is_not_run_again_unless_the_data_changed(tmp_path: Path) -> None:
    calls: list[int] = []
    own = study(tmp_path)
    cell = counted(calls, np.arange(len(own.dev.exchanges)))
    first, known = settle(cell, own, tmp_path / "out")
    assert not known
    assert settle(cell, study(tmp_path), tmp_path / "out") == (first, True)
    assert len(calls) == 1
    settle(cell, study(tmp_path, seed=1), tmp_path / "out")
    assert len(calls) == 2


def test_a_cell_killed_in_the_middle_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def dies(_: Study) -> Outcome:
        raise KeyboardInterrupt

    own, calls = study(tmp_path), []  # type: ignore[var-annotated]
    with pytest.raises(KeyboardInterrupt):
        settle(Cell("recipe", "softmax-1", dies), own, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.json"))
    assert settle(counted(calls, np.arange(200)), own, tmp_path / "out")[1] is False


def test_the_figures_are_those_of_the_scores_and_no_text_is_kept(tmp_path: Path) -> None:
    own = study(tmp_path)
    rows = own.dev
    scores = np.random.default_rng(0).normal(size=len(rows.exchanges)) + rows.labels
    record, _ = settle(counted([], scores), own, tmp_path / "out")
    figures = record["sets"]["dev"]["figures"]
    assert figures["auroc"]["value"] == pytest.approx(auroc(rows.labels, scores))
    assert figures["recall"]["value"] == pytest.approx(recall_at_fpr(rows.labels, scores, 0.01))
    assert figures["auroc"]["low"] < figures["auroc"]["value"] < figures["auroc"]["high"]
    near = record["sets"]["near misses"]
    assert near["positives"] == rows.labels.sum()
    assert near["n"] < len(rows.exchanges)
    assert "text " not in json.dumps(record)
    assert VERSION


def test_a_difference_is_taken_on_the_same_rows_or_not_at_all(tmp_path: Path) -> None:
    own = study(tmp_path)
    labels = own.dev.labels
    rng = np.random.default_rng(1)
    weak, strong = (rng.normal(size=len(labels)) + share * labels for share in (0.5, 2.0))
    records = [settle(Cell("g", name, lambda s, z=z: Outcome(measured(s.dev, z), 1)), own, tmp_path / "o")[0]
               for name, z in (("weak", weak), ("strong", strong))]  # fmt: skip
    found = difference(records[1], records[0], "dev", "auroc", 0)
    assert found is not None
    assert found.low is not None
    assert found.low > 0
    assert found.value == pytest.approx(auroc(labels, strong) - auroc(labels, weak), abs=1e-3)
    nothing = difference(records[0], records[0], "dev", "auroc", 0)
    assert nothing is not None
    assert (nothing.low, nothing.high) == (0, 0)
    assert difference(records[0], records[1], "public", "auroc", 0) is None
    records[1]["sets"]["dev"]["rows"][0][0] ^= 1
    assert difference(records[0], records[1], "dev", "auroc", 0) is None


def test_smaller_draws_lie_inside_larger_ones_and_follow_the_seed(tmp_path: Path) -> None:
    ids = {limit: [e.id for e in study(tmp_path, limit).train.exchanges] for limit in (60, 120, None)}
    assert ids[60] == ids[120][:60] == ids[None][:60]
    assert ids[60] != [e.id for e in study(tmp_path, 60, seed=1).train.exchanges]


def test_too_few_rows_on_a_side_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"fewer than {LEAST} on one side"):
        _ = study(tmp_path, n=LEAST).dev


def test_a_cell_that_is_skipped_leaves_no_file(tmp_path: Path) -> None:
    def missing(_: Study) -> Outcome:
        raise Skipped("no package")

    with pytest.raises(Skipped):
        settle(Cell("encoders", "x", missing), study(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
