"""The study: both papers' ablations at this scale, in one command that goes on where it was killed.

    .venv/bin/charter synthesize general --out runs/study                                   # examples, where there are none
    .venv/bin/python benchmarks/ablations.py --examples runs/study --data FOLDER            # some 40 minutes on two cores
    .venv/bin/python benchmarks/ablations.py --examples runs/study --data FOLDER --write    # what is missing, then docs/study.md

Each cell is a JSON file in `--out`; one that is there is not run again unless its data or sizes changed. `--only recipe` (or
`recipe/softmax-16`) runs a part, `--limit 200` a small one. `--data` names a folder of development benchmarks, which are only measured on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from charter.embedded import cache_folder
from charter.errors import CharterError, DataError
from charter.records import write_text
from study import amounts, encoders, planted, recipes, scorers, views
from study.cells import Cell, Skipped, settle
from study.data import Study
from study.write import load, page

PAGE = Path(__file__).parents[1] / "docs" / "study.md"


def all_cells() -> list[Cell]:
    """Every cell, in the order in which they are run and written."""
    parts = (recipes, amounts, scorers, views, planted, encoders)
    return [cell for part in parts for cell in part.cells()]


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except CharterError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    cells = all_cells()
    wanted = [cell for cell in cells if not options.only or cell.id == options.only or cell.group == options.only]
    if not wanted:
        raise DataError(f"--only {options.only}: there is no such cell; the groups are {', '.join(dict.fromkeys(c.group for c in cells))}")
    study = Study(options.examples, options.data, options.limit, options.seed, options.cache, options.backbone, _say)
    skipped = []
    for number, cell in enumerate(wanted, 1):
        try:
            record, known = settle(cell, study, options.out)
        except Skipped as missing:
            skipped.append(f"{cell.id}: skipped, {missing}")
            continue
        found = "; ".join(f"{name} AUROC {own['figures']['auroc']['value']:.3f}" for name, own in record["sets"].items())
        took = "known" if known else f"{record['seconds']:.0f} s"
        _line(f"{number:3} of {len(wanted)}  {cell.id:32} {took:>8}  {found}\n")
    for line in skipped:
        _line(line + "\n")
    if options.write:
        shown = "benchmarks/ablations.py --examples DATA" + (" --data FOLDER" if options.data else "")
        write_text(options.write, page(load(options.out, cells), shown + " --write"))
        _line(f"wrote {options.write}\n")


def _parser() -> argparse.ArgumentParser:
    first, *rest = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(description=first, epilog="\n\n".join(rest), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=Path, default=Path("runs/demo"), help="folder or file of `charter synthesize`")
    parser.add_argument("--data", type=Path, help="folder of development benchmarks")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder of the cells")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "activations", help="folder of the activations")
    parser.add_argument("--only", help="a group, or one cell as group/name")
    parser.add_argument("--limit", type=_positive, help="rows of each subset, at most")
    parser.add_argument("--seed", type=int, default=0, help="of draws and intervals")
    parser.add_argument("--backbone", default="embedded", help="embedded, a folder, or a hub id")
    parser.add_argument("--write", type=Path, nargs="?", const=PAGE, help="write the page (docs/study.md) from the cells")
    return parser


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _say(stage: str, done: int, total: int) -> None:
    if done == total or sys.stderr.isatty():
        _line(f"{stage}: {done:,} of {total:,}" + ("\n" if done == total else ""))


def _line(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
