from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from charter.constitution import Constitution, load
from charter.errors import DataError
from charter.records import Example, Turn
from charter.training.table import LEAST_POSITIVES, tables

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
