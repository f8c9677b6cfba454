"""Requests of public sets in disguises that a guard never saw: recall beside that of the same requests as written.

    .venv/bin/python benchmarks/obfuscated.py general --data FOLDER [--harmful 100] [--harmless 300] [--rate 0.01] [--seed 0] [--out obfuscated.json]

Payloads are prompts of one turn and at most --longest characters, drawn by set in turn from the harmful and the harmless rows of FOLDER. Each is scored as
written and in every held-out family (or those of --families), harmless ones too, so that form alone earns nothing. Recall is at the threshold that
flags at most --rate of the harmless payloads: for the plain column of the plain ones, for a family of those in it, for `all disguised` of all of them
together. `kept` is recall disguised / recall plain. Intervals are over payloads, each drawn with all of its forms.
The last two columns are at the guard's own threshold. `general` saw none of the registry's held-out families; of a guard that was built with other
ones (--held-out) name those.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import NoData
from charter.evaluation.datasets import Item, load_folder
from charter.evaluation.precision import sixteen_bits
from charter.guard.folder import Guard, load
from charter.guard.shipped import place
from charter.records import Exchange, write_text
from charter.statistics import bootstrap, clopper_pearson, recall_at_fpr
from charter.synthesis.families import FAMILIES, HELD_OUT

Figures = NDArray[np.float64]


def main() -> None:
    """Score, measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    for name, default in (("harmful", 100), ("harmless", 300), ("longest", 300), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=list(HELD_OUT))
    parser.add_argument("--point", choices=("quiet", "balanced"), default="quiet")
    parser.add_argument("--bfloat16", action="store_true", help="16-bit weights: about twice as fast")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    guard = load(place(asked.guard), point=asked.point)
    if asked.bfloat16:
        sixteen_bits(guard)
    payloads = drawn(asked.data, asked.harmful, asked.harmless, asked.longest, asked.seed)
    forms = ["plain", *asked.families]
    scores, flagged = scored(guard, payloads, forms, asked.seed)
    labels = np.array([item.positive for item in payloads])
    found = {
        "guard": guard.hash, "seed": asked.seed, "rate": asked.rate, "harmful": int(labels.sum()), "harmless": int((~labels).sum()),
        **measured(labels, scores, flagged, forms, asked.rate, asked.seed),
    }  # fmt: skip
    print(table(found))
    if asked.out:
        write_text(asked.out, json.dumps(found, indent=2) + "\n")


def drawn(data: Path, harmful: int, harmless: int, longest: int, seed: int) -> list[Item]:
    """Payloads, set by set in turn, so that no large set crowds out a small one.

    Raises:
        NoData: one of the sides is empty.
    """
    found: list[Item] = []
    for side, most in ((True, harmful), (False, harmless)):
        sets = []
        for s in load_folder(data):
            short = [
                i for i in s.items if i.positive == side and len(i.exchange.turns) == 1 and len(i.exchange.turns[0].content) <= longest
            ]
            sets.append(Random(f"{seed}:{s.name}").sample(short, len(short)))
        own = [item for level in zip_longest(*sets) for item in level if item is not None][:most]
        if not own:
            raise NoData(f"{data}: holds no {'harmful' if side else 'harmless'} prompt of one turn and at most {longest} characters")
        found += own
    return found


def scored(guard: Guard, payloads: Sequence[Item], forms: Sequence[str], seed: int) -> tuple[Figures, NDArray[np.bool_]]:
    """Score and verdict of each payload in each form: [payloads, forms]."""
    texts = [
        Exchange(f"{n}:{form}", FAMILIES[form].disguise(item.exchange.turns, Random(f"{seed}:{n}:{form}")))
        for n, item in enumerate(payloads)
        for form in forms
    ]
    order = sorted(range(len(texts)), key=lambda n: sum(len(turn.content) for turn in texts[n].turns))
    scores, flagged = np.empty(len(texts)), np.empty(len(texts), bool)
    for number, (_, verdict) in zip(order, guard.score(texts[n] for n in order), strict=True):
        scores[number], flagged[number] = verdict.score, verdict.flagged
    return scores.reshape(len(payloads), len(forms)), flagged.reshape(len(payloads), len(forms))


def measured(
    labels: NDArray[np.bool_], scores: Figures, flagged: NDArray[np.bool_], forms: Sequence[str], rate: float, seed: int
) -> dict[str, Any]:
    """Recall by form and of all disguises together, what share of the plain recall is kept, and what the guard's own threshold does."""

    def recall(y: NDArray[np.bool_], z: Figures) -> float:
        return recall_at_fpr(np.repeat(y, z.shape[1]) if z.ndim > 1 else y, z.ravel(), rate)

    def kept(y: NDArray[np.bool_], z: Figures) -> float:
        plain = recall(y, z[:, 0])
        return recall(y, z[:, 1:]) / plain if plain else np.nan

    columns = {form: scores[:, n] for n, form in enumerate(forms)} | {"all disguised": scores[:, 1:]}
    rows = {}
    for n, (form, z) in enumerate(columns.items()):
        own = flagged[:, n] if n < len(forms) else None
        rows[form] = {"recall": bootstrap(recall, labels, z, seed).as_dict()}
        if own is not None:
            rows[form] |= {
                name: clopper_pearson(int(own[side].sum()), int(side.sum())).as_dict()
                for name, side in (("caught", labels), ("wrong", ~labels))
            }
    return {"kept": bootstrap(kept, labels, scores, seed).as_dict(), "forms": rows}


def table(found: dict[str, Any]) -> str:
    """The figures as a Markdown table."""

    def told(own: dict[str, float] | None) -> str:
        return f"{own['value']:.3f} [{own['low']:.3f}, {own['high']:.3f}]" if own else ""

    lines = [
        f"{found['harmful']} harmful and {found['harmless']} harmless payloads, guard {found['guard']}, seed {found['seed']}",
        f"kept: {told(found['kept'])} of the plain recall at {found['rate']:g} false positives", "",
        f"| form | recall at {found['rate']:g} | caught at the guard's threshold | wrongly flagged there |", "|---|---|---|---|",
    ]  # fmt: skip
    for form, own in found["forms"].items():
        lines.append(f"| {form} | {told(own['recall'])} | {told(own.get('caught'))} | {told(own.get('wrong'))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
