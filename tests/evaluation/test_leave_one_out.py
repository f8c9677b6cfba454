from __future__ import annotations

from itertools import product

import pytest

from charter.errors import NoData
from charter.evaluation.leave_one_out import leave_one_out
from charter.records import Example, Turn

ANIMALS = ("wolf", "raven")
HARMLESS = {
    "train": ("goat", "horse", "sheep", "donkey"),
    "dev": ("tiger", "panda", "camel", "zebra"),
    "test": ("otter", "moose", "hyena", "bison"),
}


def rows(disguise: dict[str, str], splits: tuple[str, ...] = ("train", "dev", "test")) -> list[Example]:
    """Prompts about animals, of which some are restricted, in several families: family to what it makes of a name.

    All of the family `marked` are restricted and say what harmless rows say: its mark alone tells.
    """
    out = []
    for split, family, n in product(splits, disguise, range(24)):
        animal, restricted = (ANIMALS[n % 2], True) if n % 3 == 0 else (HARMLESS[split][n % 4], False)
        if family == "marked":
            animal, restricted = "goat", True
        text = f"What does the {disguise[family].format(animal)} eat in month {n} of {split} year?"
        side = "restricted" if restricted else "permitted"
        out.append(
            Example(f"{split}-{family}-{n}", (Turn("user", text),), restricted, None, "wolves", side, "chat", family, f"{split}{n}", "t", 0, split, "0"),
        )  # fmt: skip
    return out


def test_a_disguise_of_its_own_is_lost_and_one_that_shares_words_is_not() -> None:
    found = leave_one_out(rows({"plain": "{0}", "polite": "dear {0}", "marked": "marked {0} marked"}), budget=0.05)["prompt"]
    assert set(found) == {"polite", "marked"}
    assert found["polite"]["with"]["value"] == found["polite"]["without"]["value"] == 1
    assert found["marked"]["with"]["value"] == 1
    assert found["marked"]["without"]["value"] < 0.5
    assert found["marked"]["n"] == found["marked"]["without"]["n"] == 48


def test_no_family_to_leave_out_is_an_error() -> None:
    with pytest.raises(NoData, match="none can be left out"):
        leave_one_out(rows({"plain": "{0}"}), budget=0.05)
    with pytest.raises(NoData, match="none can be left out"):
        leave_one_out(rows({"plain": "{0}", "polite": "dear {0}"}, ("train",)), budget=0.05)
