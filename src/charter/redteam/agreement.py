"""The judge against human labels: sensitivity, specificity and F1 of success, and where the shipped figures come from.

`python -m charter.redteam.agreement FOLDER SET ...` measures the judge without a rubric (a reply that complies is a success) on
labelled sets of `FOLDER` and writes the counts that every report is corrected by: no text, only counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from charter.errors import DataError, NoData
from charter.evaluation.datasets import Set, load_folder
from charter.records import read_jsonl, write_text
from charter.redteam.campaign import Attempt
from charter.redteam.judge import unreadable
from charter.redteam.rates import JudgeError, Share, share
from charter.refusals.classify import Classifier, load
from charter.statistics import bootstrap, f1

FILE, DRAWS = "judge.json", 1_000
DEFAULT = ("pyrit_objective", "harmbench_response")


def shipped() -> JudgeError:
    """What was measured of the judge without a rubric, on two public sets together."""
    told = json.loads((resources.files("charter.redteam") / "data" / FILE).read_text(encoding="utf-8"))
    return error_of(told["pooled"], told["source"])


def measure(sets: Sequence[Set], classifier: Classifier, seed: int = 0) -> dict[str, Any]:
    """Figures of each set of replies, and of all of them together.

    Raises:
        NoData: there is no set of replies with both labels.
    """
    usable = [s for s in sets if s.kind == "response" and len({i.positive for i in s.items}) == 2]
    if not usable:
        raise NoData("the judge is measured on rows of kind response, labelled harmful and safe; there are none of both")
    found = {s.name: [(i.positive, _complies(classifier, i.exchange.turns), i.exchange.turns[0].content) for i in s.items] for s in usable}
    pooled = [row for rows in found.values() for row in rows]
    return {
        "schema": 1,
        "seed": seed,
        "source": f"human labels of {' and '.join(found)}, judged without a rubric",
        "sets": {name: _figures(rows, seed) for name, rows in found.items()},
        "pooled": _figures(pooled, seed),
    }


def labelled(file: Path, attempts: Sequence[Attempt]) -> JudgeError:
    """The error of this very judge on this very target, by people's labels of attempts: rows {"n", "success"}.

    Raises:
        DataError: a row is off or names an attempt that there is not.
        NoData: successes or failures are missing among the labels.
    """
    by, rows = {a.n: a for a in attempts}, []
    if not file.is_file():
        raise DataError(f"{file}: there is no such file of labels")
    for number, row in read_jsonl(file):
        attempt = by.get(row["n"]) if isinstance(row.get("n"), int) else None
        if attempt is None or not isinstance(row.get("success"), bool):
            raise DataError(f'{file}:{number}: a label is {{"n": number of an attempt, "success": true or false}}')
        rows.append((row["success"], attempt.judged.success, attempt.question))
    if len({truth for truth, _, _ in rows}) < 2:
        raise NoData(f"{file}: the judge's error takes attempts that succeeded and such that did not, by people's word; label more of them")
    return error_of(_figures(rows, 0), f"{len(rows):,} of its own attempts labelled by people")


def error_of(figures: dict[str, Any], source: str) -> JudgeError:
    """From figures as `measure` gives them."""
    a, b = (Share(f["value"], f["n"], f["effective"]) for f in (figures["sensitivity"], figures["specificity"]))
    return JudgeError(a, b, source)


def _figures(rows: Sequence[tuple[bool, bool, str]], seed: int) -> dict[str, Any]:
    """rows: truth, judgement, what was asked; rows of one request count together."""
    truth, said, clusters = zip(*rows, strict=True)
    positive = [(s, c) for t, s, c in rows if t]
    negative = [(not s, c) for t, s, c in rows if not t]
    error = JudgeError(share(*zip(*positive, strict=True)), share(*zip(*negative, strict=True)), "")
    numbers = {c: n for n, c in enumerate(dict.fromkeys(clusters))}
    figure = bootstrap(f1, truth, [float(s) for s in said], seed, DRAWS, [numbers[c] for c in clusters])
    told = error.as_dict()
    return {"n": len(rows), "f1": figure.as_dict(), "sensitivity": told["sensitivity"], "specificity": told["specificity"]}


def _complies(classifier: Classifier, turns: Any) -> bool:
    asked = next((t.content for t in reversed(turns[:-1]) if t.role == "user"), None)
    return not unreadable(turns[-1].content) and classifier.judge(turns[-1].content, asked).did == "complied"


def main(folder: Path, names: Sequence[str], out: Path | None) -> dict[str, Any]:
    """Measure on the named sets of a folder, and write the figures."""
    sets = [s for s in load_folder(folder) if s.name in (names or DEFAULT)]
    told = measure(sets, load())
    if out is not None:
        write_text(out, json.dumps(told, indent=1) + "\n")
    return told


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="SET")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    print(json.dumps(main(options.folder, options.names, options.out), indent=1))  # noqa: T201
