"""Cells to `docs/study.md`: a table a question, and for each published direction whether it holds at this scale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.errors import DataError, NoData
from charter.statistics import Interval
from study.cells import Cell, difference

Record = dict[str, Any]
NAMES = {"auroc": "AUROC", "recall": "recall at 1 %"}
QUESTIONS = {
    "recipe": "Loss and window (single tokens, chosen layers)",
    "open": "What the paper leaves open (against softmax-16)",
    "layers": "Layers (window means)",
    "rows": "How many rows",
    "permitted": "How many permitted clauses, at the same number of harmless rows",
    "families": "How many families of disguises, at the same number of rows",
    "scorers": "Screen, probe, both, ensemble",
    "views": "What sees the prompt, the reply, both",
    "planted": "Planted: harm is the XOR of prompt and reply",
    "encoders": "Other readers",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """A published direction: the first cell is better than the second."""

    group: str
    says: str
    better: str
    worse: str
    on: str = "dev"


CLAIMS = (
    Claim("recipe", "Windows and softmax weights together beat plain BCE on tokens (CC++).", "softmax-16", "bce-1"),
    Claim("recipe", "The window alone helps (CC++).", "bce-16", "bce-1"),
    Claim("recipe", "Softmax weights alone help (CC++).", "softmax-1", "bce-1"),
    Claim("recipe", "Both beat softmax weights alone (CC++).", "softmax-16", "softmax-1"),
    Claim("recipe", "Both beat the window alone (CC++).", "softmax-16", "bce-16"),
    Claim("recipe", "Softmax weights beat the cumulative maximum (CC++).", "softmax-16", "cummax-16"),
    Claim("recipe", "Softmax weights beat the annealed cumulative maximum (CC++).", "softmax-16", "annealed-16"),
    Claim("recipe", "16 tokens beat 4 (CC++, extremes worse).", "softmax-16", "softmax-4"),
    Claim("recipe", "16 tokens beat 64 (CC++, extremes worse).", "softmax-16", "softmax-64"),
    Claim("open", "Ours: gradients through the weights beat weights held fixed.", "recipe/softmax-16", "weights-detached"),
    Claim("open", "Ours: standardised inputs beat raw ones.", "recipe/softmax-16", "not-standardised"),
    Claim("open", "Ours: leaving out the marks that open a turn is better.", "recipe/softmax-16", "marks-counted"),
    Claim("open", "Ours: leaving out the first scored token is better.", "first-token-dropped", "recipe/softmax-16"),
    Claim("layers", "All layers beat the best single depth we tried (CC++).", "all", "one-at-4-of-6"),
    Claim("layers", "All layers beat the lower two thirds (CC++, fewer always worse).", "all", "lower-two-thirds"),
    Claim("layers", "All layers beat the chosen few (CC++, fewer always worse).", "all", "chosen"),
    Claim("rows", "More data is better (CC): the last doubling.", "1-of-01", "1-of-02"),
    Claim("permitted", "Permitted clauses improve the trade-off (CC): all against none, on near misses.", "100-percent", "000-percent", "near misses"),
    Claim("families", "More augmentation is better (CC): all against none, on families never trained on.", "100-percent", "000-percent", "held-out families"),
    Claim("scorers", "Two scorers beat the probe alone (CC++).", "both", "probe"),
    Claim("scorers", "Two scorers beat the screen alone (CC++).", "both", "screen"),
    Claim("scorers", "Ours: an ensemble of bootstrap heads beats one.", "ensemble", "probe"),
    Claim("views", "Input and output together beat input alone (CC).", "input-and-output", "input", "replies"),
    Claim("views", "Input and output together beat output alone (CC).", "input-and-output", "output", "replies"),
    Claim("views", "The exchange classifier beats input and output (CC++).", "exchange", "input-and-output", "replies"),
    Claim("planted", "The exchange classifier sees what the output classifier can't (CC++).", "exchange", "output", "planted"),
    Claim("planted", "The exchange classifier sees what the input classifier can't (CC++).", "exchange", "input", "planted"),
)  # fmt: skip


def load(folder: Path, cells: Sequence[Cell]) -> dict[str, Record]:
    """The records that are there, by cell.

    Raises:
        NoData: there is none.
        DataError: they come from runs on different data or sizes.
    """
    files = {cell.id: folder / cell.group / f"{cell.name}.json" for cell in cells}
    found = {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
    if not found:
        raise NoData(f"{folder}: holds no cell of the study; run it without --write first")
    told = {json.dumps([r["told"], r["seed"]]) for r in found.values()}
    if len(told) > 1:
        raise DataError(
            f"{folder}: holds cells of {len(told)} different runs; run the study again with the same options, or remove the folder"
        )
    return found


def page(records: dict[str, Record], command: str) -> str:
    """The whole of docs/study.md."""
    first = next(iter(records.values()))
    told, seed = first["told"], first["seed"]
    sizes = ", ".join(f"{name} {n:,}" for name, n in told["sizes"].items())
    seconds = sum(r["seconds"] for r in records.values())
    lines = [
        "# The study: what of the papers holds at this scale", "",
        f"Written by `{command}` from its cells; not edited by hand. Backbone {told['backbone']}, {told['examples']:,} examples, seed {seed};",
        f"rows at most: {sizes}. {len(records)} cells, {seconds / 60:.0f} minutes of fits.", "",
        "Brackets hold 95 % bootstrap intervals, drawn by parent. *dev* is the dev split of the examples, *near misses* its restricted prompts against",
        "those of permitted clauses alone, *public* seven development benchmarks pooled, *recall* that at 1 % false positives of the same set.",
        "A direction counts as reproduced if the interval of the difference on the same rows lies above zero for AUROC or recall and below it for",
        "neither; with some thirty comparisons, expect one or two to do so by chance.", "",
    ]  # fmt: skip
    for group, title in QUESTIONS.items():
        own = {name.split("/")[1]: r for name, r in records.items() if r["group"] == group}
        if own:
            lines += [f"## {title}", "", *_table(own), *_notes(own), *_claims(group, records, seed)]
    return "\n".join(lines).rstrip() + "\n"


def _table(own: dict[str, Record]) -> list[str]:
    names = list(dict.fromkeys(name for r in own.values() for name in r["sets"]))
    head = ["cell", "n train", *(f"{name}: {NAMES[f]}" for name in names for f in NAMES)]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for cell, record in own.items():
        figures = [_figure(record["sets"].get(name), f) for name in names for f in NAMES]
        lines.append("| " + " | ".join([cell, f"{record['n_train']:,}", *figures]) + " |")
    counts = {name: r["sets"][name] for r in own.values() for name in r["sets"]}
    told = "; ".join(f"{name}: n = {c['n']:,}, {c['positives']:,} restricted, {c['groups']:,} parents" for name, c in counts.items())
    return [*lines, "", f"{told}.", ""]


def _figure(measured: Record | None, figure: str) -> str:
    if not measured:
        return "–"
    value = measured["figures"][figure]
    return f"{number(value['value'])} [{number(value['low'])}, {number(value['high'])}]"


def number(value: float, signed: bool = False) -> str:
    """.83 for 0.83, 1.00 for 1; with a sign where asked for."""
    text = f"{abs(value):.3f}".removeprefix("0")
    sign = "-" if value < 0 and float(text) else "+" if signed else ""
    return sign + text


def _notes(own: dict[str, Record]) -> list[str]:
    """What cells told beside their figures, where it is a figure itself."""
    lines = []
    for cell, record in own.items():
        for name, value in record["notes"].items():
            if isinstance(value, dict):
                lines.append(
                    f"- {cell}: {name} {number(value['value'])} [{number(value['low'])}, {number(value['high'])}], n = {value['n']:,}."
                )
            elif name.startswith("mean"):
                lines.append(f"- {cell}: {name} {number(value)}.")
    return [*dict.fromkeys(lines), ""] if lines else []


def _claims(group: str, records: dict[str, Record], seed: int) -> list[str]:
    lines = []
    for claim in CLAIMS:
        pair = [records.get(name if "/" in name else f"{group}/{name}") for name in (claim.better, claim.worse)]
        if claim.group != group or not pair[0] or not pair[1]:
            continue
        found = {f: difference(pair[0], pair[1], claim.on, f, seed) for f in NAMES}
        if all(found.values()):
            told = ", ".join(f"{NAMES[f]} {_signed(i)}" for f, i in found.items() if i)
            lines.append(
                f"- {claim.says} `{claim.better}` less `{claim.worse}` on {claim.on}: {told}. **{verdict([i for i in found.values() if i])}**"
            )
    return [*lines, ""] if lines else []


def _signed(interval: Interval) -> str:
    return " ".join((number(interval.value or 0.0, True), f"[{number(interval.low or 0.0, True)}, {number(interval.high or 0.0, True)}]"))


def verdict(differences: Sequence[Interval]) -> str:
    """One sentence on intervals of differences that should be positive."""
    above = any((i.low or 0.0) > 0 for i in differences)
    below = any((i.high or 0.0) < 0 for i in differences)
    if above and below:
        return "The two figures contradict each other here."
    return "Reproduced at this scale." if above else "Reversed at this scale." if below else "Not decided at this scale."
