from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ablations
from charter.errors import DataError, NoData
from charter.records import write_text
from charter.statistics import Interval
from study.cells import Measured
from study.write import CLAIMS, QUESTIONS, load, number, page, verdict


def record(group: str, name: str, shift: float, n: int = 120) -> dict[str, Any]:
    labels = np.arange(n) % 2 == 0
    own = Measured(labels, np.arange(n) // 2, np.random.default_rng(0).normal(size=n) + shift * labels)
    rows = [labels.astype(int).tolist(), own.groups.tolist(), own.scores.tolist()]
    told = {"examples": 10, "sizes": {"train": 5}, "public": False, "backbone": "embedded"}
    measured = {"n": n, "positives": n // 2, "groups": n // 2, "figures": own.figures(0), "rows": rows}
    return {"group": group, "name": name, "seed": 0, "n_train": 1_234, "notes": {}, "seconds": 1.0, "told": told, "sets": {"dev": measured}}


def test_every_claim_names_cells_that_exist() -> None:
    ids = [cell.id for cell in ablations.all_cells()]
    assert len(set(ids)) == len(ids)
    assert {name.split("/")[0] for name in ids} == set(QUESTIONS)
    for claim in CLAIMS:
        for name in (claim.better, claim.worse):
            assert (name if "/" in name else f"{claim.group}/{name}") in ids


def test_the_page_has_the_figures_and_says_what_holds() -> None:
    records = {f"recipe/{name}": record("recipe", name, shift) for name, shift in (("softmax-16", 2.0), ("bce-1", 0.2), ("softmax-1", 2.0))}
    text = page(records, "the command")
    assert "`the command`" in text
    assert "| softmax-16 | 1,234 | ." in text
    assert "n = 120, 60 restricted, 60 parents" in text
    claims = {line.split(" `")[0]: line for line in text.splitlines() if line.startswith("- ")}
    assert claims["- Windows and softmax weights together beat plain BCE on tokens (CC++)."].endswith("**Reproduced at this scale.**")
    assert claims["- Both beat softmax weights alone (CC++)."].endswith("**Not decided at this scale.**")
    assert len(claims) == 3  # those whose two cells are there


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted), min_size=1, max_size=3))
def test_a_direction_holds_only_if_no_figure_speaks_against_it(bounds: list[list[float]]) -> None:
    said = verdict([Interval((low + high) / 2, low, high, 9) for low, high in bounds])
    assert ("Reproduced" in said) == (any(low > 0 for low, _ in bounds) and all(high >= 0 for _, high in bounds))
    assert ("Reversed" in said) == (any(high < 0 for _, high in bounds) and all(low <= 0 for low, _ in bounds))


@pytest.mark.parametrize(("value", "text"), [(0.8312, ".831"), (1.0, "1.000"), (-0.02, "-.020"), (0.0, ".000"), (-0.0001, ".000")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_cells_of_two_runs_are_not_written_together(tmp_path: Path) -> None:
    import json

    cells = ablations.all_cells()[:2]
    with pytest.raises(NoData, match="no cell"):
        load(tmp_path, cells)
    for k, cell in enumerate(cells):
        write_text(tmp_path / cell.group / f"{cell.name}.json", json.dumps({**record(cell.group, cell.name, 1.0), "seed": k}))
    with pytest.raises(DataError, match="2 different runs"):
        load(tmp_path, cells)


def test_mistakes_are_one_sentence_and_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ablations.main(["--only", "nonsense"]) == 2
    assert "there is no such cell; the groups are recipe" in capsys.readouterr().err
    assert ablations.main(["--examples", str(tmp_path / "none")]) == 2
    assert "there is no such file of examples" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        ablations.main(["--limit", "0"])
