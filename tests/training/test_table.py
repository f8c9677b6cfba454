from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from charter.constitution import Constitution, load
from charter.errors import DataError
from charter.records import Example, Split, Turn, write_examples
from charter.training.table import LEAST_POSITIVES, tables, training_rows

GENERAL = load("general")


def examples(constitution: Constitution = GENERAL, n: int = 60) -> Iterator[Example]:
    """n prompts and replies a side in train, ten in dev, three in test; restricted ones of two clauses."""
    for split, count in (("train", n), ("dev", 10), ("test", 3)):
        for number in range(count):
            for restricted in (True, False):
                clause = constitution[("fraud-scams", "malware")[number % 2] if restricted else "learning"]
                base = Example(
                    f"{split}{number}{restricted}", (Turn("user", f"text {number}"),), restricted, None, clause.id, clause.side,
                    f"{clause.side}:{clause.id}", "plain", f"parent{number}", "recorded:authored", 0, split, clause.hash,
                )  # fmt: skip
                yield base
                yield replace(base, turns=(*base.turns, Turn("assistant", "reply")), reply_restricted=restricted)


def test_the_test_split_is_never_read() -> None:
    found = tables(examples(), GENERAL)
    assert set(found) == {(v, s) for v in ("prompt", "exchange") for s in ("train", "dev")}
    assert not any(e.id.startswith("test") for table in found.values() for e in table.exchanges)


def test_rows_with_a_reply_teach_the_exchange_view_and_the_others_the_prompt_view() -> None:
    for (view, _), table in tables(examples(), GENERAL).items():
        assert all((e.reply is not None) == (view == "exchange") for e in table.exchanges)


def test_each_restricted_row_has_the_overall_label_and_its_clauses() -> None:
    table = tables(examples(), GENERAL)["prompt", "train"]
    assert set(table.clauses) == {"fraud-scams", "malware"}
    assert np.array_equal(table.labels[:, 0], table.labels[:, 1:].sum(1))
    assert table.labels[:, 0].sum() == 60


def test_a_clause_with_too_few_examples_gets_no_head_but_counts_overall() -> None:
    few = [e for e in examples(n=100) if e.clause != "malware" or int(e.parent.removeprefix("parent")) < 2 * LEAST_POSITIVES - 2]
    table = tables(few, GENERAL)["prompt", "train"]
    assert table.clauses == ("fraud-scams",)
    assert table.labels[:, 0].sum() > table.labels[:, 1].sum()


def test_examples_of_another_text_of_a_clause_are_refused() -> None:
    with pytest.raises(DataError, match="another text of clause 'fraud-scams'"):
        tables((replace(e, clause_hash="0" * 16) for e in examples()), GENERAL)


def test_too_few_examples_on_a_side_are_refused() -> None:
    with pytest.raises(DataError, match="only 40 restricted examples in the train split"):
        tables(examples(n=40), GENERAL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Examples, and the rows of rounds 1, 2 and 10 made from a train prompt of theirs."""
    base = list(examples())
    write_examples(tmp_path / "examples.parquet", base)
    parent = next(e for e in base if e.split == "train")
    for number in (1, 2, 10):
        write_examples(tmp_path / f"redteam-{number}.parquet", [replace(parent, id=f"round{number}", teacher=f"redteam:{number}")])
    return tmp_path


def test_a_folder_gives_its_examples_and_then_the_rows_of_its_rounds_in_order(folder: Path) -> None:
    ids = [e.id for e in training_rows(folder)]
    assert ids == [*(e.id for e in examples()), "round1", "round2", "round10"]
    assert [e.id for e in training_rows(folder / "examples.parquet")] == ids[:-3]
    assert [e.id for e in training_rows([folder / "examples.parquet", folder / "redteam-2.parquet"])] == [*ids[:-3], "round2"]


def test_other_files_of_the_folder_are_not_rows(folder: Path) -> None:
    for name in ("redteam-3.parquet.aside", "redteam-3.parquet.part", "redteam-x.parquet", "redteam-0.parquet", "other.parquet"):
        (folder / name).write_bytes(b"not rows")
    assert len(list(training_rows(folder))) == len(list(examples())) + 3


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_round_made_from_a_prompt_that_left_the_train_split_is_refused(folder: Path, split: Split) -> None:
    gone = next(training_rows(folder)).parent
    write_examples(folder / "examples.parquet", [replace(e, split=split) if e.parent == gone else e for e in examples()])
    with pytest.raises(DataError, match=r"redteam-1\.parquet.*--rounds again"):
        list(training_rows(folder))


def test_a_round_made_for_another_text_of_a_clause_names_its_mend() -> None:
    stale = (replace(e, clause_hash="0" * 16, teacher="redteam:1") for e in examples())
    with pytest.raises(DataError, match="charter build` with --rounds again"):
        tables(stale, GENERAL)
