"""A cascade beside its own last stage alone: what it costs on ordinary traffic, and what it finds at the same false positives.

    .venv/bin/python benchmarks/cascade.py general --data FOLDER [--view prompt] [--limit 200] [--rate 0.01] [--seed 0] [--out runs/cascade.json]

FOLDER holds public sets as `charter evaluate` reads them. Those of --benign are the ordinary traffic: cost and false positives are
measured on them; recall on the harmful rows of all others of the view. Every stage reads every text once, so that any escalation
threshold can be tried afterwards. The guard is measured as it is (row `as it is`), and with the last stage asked only from a screen's
logit (or what stands before it) on, at thresholds that let through ever fewer of the ordinary texts: no recall is looked at to choose them.
Where a sentence encoder reads prompts, the probe is asked by the first impression of screen and encoder, and in `heard` rows the encoder itself reads only
windows at whose first glance a share of the ordinary texts is let through.
All compared at thresholds that flag at most --rate of the ordinary texts. A guard that is screen-first by itself is made, and then measured, by

    charter build general --out guard --screen-first          # or: charter train DATA --out guard --screen-first
    .venv/bin/python benchmarks/cascade.py guard --data FOLDER

cost ratio = c2 / (c1 + e c2): c1 of what stands before the last stage on what it reads, c2 of the last, e the share of tokens that it reads, all summed over
the ordinary texts; its interval draws the texts, and with them all that is read of them. In FLOPs the
screen counts nothing (no matrix product), in seconds it counts; the first glance counts in both. Seconds are those of single requests, one at a time, each
stage timed on the same ones.
Take times on a quiet machine. Every figure carries a 95 % interval over texts (recalls with kin together). The difference of
recalls is taken on the same draws. Several rows are read off one set of texts: a row that looks best among them is a little worse.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import NoData
from charter.evaluation.datasets import Item, load_folder, sample
from charter.evaluation.metrics import clusters
from charter.guard.folder import load
from charter.guard.shipped import place
from charter.models.cascade import Cascade
from charter.models.stage import ALWAYS
from charter.models.threads import numpy_alone
from charter.models.trained import Gate, Listening
from charter.models.whole import text_of
from charter.records import View, write_text
from charter.statistics import Interval, bootstrap, ratio, recall_at_fpr
from charter.training.dev_scores import DevLogits
from charter.training.table import Table

BENIGN = ("mmlu_other", "gsm8k_test", "mt_bench", "self_instruct_user", "arena_hard", "wildchat_benign")
SHARES = (0.8, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Of ordinary texts that reach the escalation threshold."""
HEARD = ((0.5, 0.05), (0.35, 0.02), (0.35, 0.01), (0.25, 0.02), (0.25, 0.01), (0.2, 0.01))
"""Of ordinary texts of which the sentence encoder reads anything, and of those that the backbone reads."""
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a token costs, in FLOPs or in seconds."""

    screen: float
    stages: tuple[float, ...]
    glance: float = 0.0
    """Of the sentence encoder's own tokens, as the next."""
    encoder: float = 0.0

    def cheaper(self, of: DevLogits, way: Way, seed: int) -> dict[str, float | int | None]:
        """How many times cheaper than the last stage alone the cascade is on these texts, with its interval over them: what is read by any
        part is drawn together."""
        gates, whole = way.gates, way.whole
        pieces, heard = (of.pieces_heard(at) for at in (ALWAYS, whole.threshold if whole else np.inf))
        spent = self.screen * of.tokens + self.glance * pieces + self.encoder * heard
        for number, rate in enumerate(self.stages, 1):
            spent = spent + rate * of.tokens_read(gates[:number], whole)
        share = ratio(spent, self.stages[-1] * of.tokens, seed)
        value, low, high = (None if not v else 1 / v for v in (share.value, share.high, share.low))
        return Interval(value, low, high, share.n).as_dict()

    def request(self, of: DevLogits) -> dict[str, float]:
        """Of each part on a text of mean length, if it reads all of it."""
        tokens, pieces = of.tokens.mean(), of.pieces_heard(ALWAYS).mean()
        stages = {f"stage {n}": float(rate * tokens) for n, rate in enumerate(self.stages, 1)}
        whole = {"glance": float(self.glance * pieces), "encoder": float(self.encoder * pieces)}
        return {"screen": float(self.screen * tokens), **whole, **stages}


@dataclass(frozen=True, slots=True)
class Texts:
    """Ordinary and harmful texts with every stage's logits."""

    benign: DevLogits
    harmful: DevLogits
    groups: NDArray[np.int64]
    """Kin, benign first."""
    sets: tuple[str, ...]
    """Of each harmful text."""

    @property
    def labels(self) -> NDArray[np.bool_]:
        return np.arange(len(self.groups)) >= len(self.groups) - len(self.sets)

    def peaks(self, gates: Sequence[Gate], whole: Listening | None = None) -> Scores:
        """Highest logit of each text under these gates: [texts]."""
        return np.concatenate([own.peaks(gates, 1, whole)[:, 0] for own in (self.benign, self.harmful)]).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Way:
    """When each part is asked."""

    gates: Sequence[Gate]
    whole: Listening | None


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guard", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--view", choices=("prompt", "exchange"), default="prompt")
    parser.add_argument("--benign", nargs="+", default=list(BENIGN), help="sets of ordinary traffic")
    parser.add_argument("--limit", type=int, default=1_000_000, help="rows of each set")
    parser.add_argument("--rate", type=float, default=0.01, help="share of ordinary texts that may be flagged")
    parser.add_argument("--timed", type=int, default=100, help="requests that are timed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/cascade.json"))
    asked = parser.parse_args()
    guard = load(place(asked.guard))
    numpy_alone()  # as serving has it
    with TemporaryDirectory() as folder:
        found = measure(guard.cascade, *rows(guard.cascade, asked), asked.view, asked.rate, asked.timed, asked.seed, Path(folder))
    told = {"guard": {"name": guard.record.name, "hash": guard.hash}, "view": asked.view, "rate": asked.rate, "seed": asked.seed, **found}
    write_text(asked.out, json.dumps(told, indent=1) + "\n")
    print("\n".join(table(told)))


def rows(cascade: Cascade, asked: argparse.Namespace) -> tuple[list[Item], list[tuple[str, Item]]]:
    """Ordinary texts, and harmful ones with their sets; those that are too long even for windows are told and left out."""
    benign: list[Item] = []
    harmful: list[tuple[str, Item]] = []
    for s in sample([s for s in load_folder(asked.data) if s.items and s.view == asked.view], asked.limit, asked.seed):
        fits = [item for item in s.items if cascade.length(item.exchange) <= cascade.longest]
        if len(fits) < len(s.items):
            print(f"{s.name}: {len(s.items) - len(fits)} texts are too long and left out")
        benign += [item for item in fits if s.name in asked.benign and not item.positive]
        harmful += [(s.name, item) for item in fits if s.name not in asked.benign and item.positive]
    if not benign or not harmful:
        raise NoData(f"{asked.data}: {len(benign)} ordinary and {len(harmful)} harmful texts of the view {asked.view}; both are needed")
    return benign, harmful


def measure(
    cascade: Cascade,
    benign: Sequence[Item],
    harmful: Sequence[tuple[str, Item]],
    view: View,
    rate: float,
    timed: int,
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """All figures."""
    items = [item for _, item in harmful]
    read = [DevLogits(cascade, texts(own, view), folder, lambda *_: None) for own in (benign, items)]
    all_texts = Texts(read[0], read[1], clusters([*benign, *items]), tuple(name for name, _ in harmful))
    ways = ways_of(cascade, view, all_texts)
    as_it_is = ways["as it is"]
    own, whole = as_it_is.gates, as_it_is.whole
    alone = all_texts.peaks([Gate(1.0)] * len(own))
    before = all_texts.peaks(own[:-1]) if whole is None or len(own) > 1 else impressions(all_texts, whole)
    flops, seconds = rates(cascade, benign, view, timed, seed)
    recall = partial(_recall, all_texts, rate=rate, seed=seed)
    figures = {name: _figures(all_texts, way, alone, flops, seconds, rate, seed) for name, way in ways.items()}
    return {
        "n": {"benign": len(benign), "harmful": len(items), "timed": min(timed, len(benign))},
        "flops": flops.request(read[0]), "seconds": seconds.request(read[0]),
        "alone": {"recall": recall(alone), "sets": _by_set(all_texts, alone, rate, seed)}, "before": {"recall": recall(before)},
        "cascades": figures,
    }  # fmt: skip


def ways_of(cascade: Cascade, view: View, of: Texts) -> dict[str, Way]:
    """The guard as it is, and with its last stage, and a sentence encoder, asked ever less."""
    own = [Gate(stage.mix[view], stage.escalate[view]) for stage in cascade.stages]
    heard = cascade.whole if view == "prompt" else None
    whole = Listening(heard.mix, heard.lead, heard.escalate) if heard else None
    by_impression = whole is not None and len(own) == 1

    def asked(share: float, whole: Listening | None) -> Way:
        held = of.benign.impressions(whole) if whole and by_impression else of.benign.peaks(own[:-1], 1)[:, 0]
        return Way([*own[:-1], Gate(own[-1].mix, float(np.quantile(held.astype(np.float64), 1 - share)))], whole)

    ways = {"as it is": Way(own, whole)} | {f"asked for {share:.0%} of texts": asked(share, whole) for share in SHARES}
    if whole and by_impression and heard and heard.glance:
        glances = of.benign.glances().astype(np.float64)
        for heard_share, share in HEARD:
            told = Listening(whole.mix, whole.lead, float(np.quantile(glances, 1 - heard_share)))
            ways[f"heard {heard_share:.0%}, asked {share:.0%}"] = asked(share, told)
    return ways


def impressions(of: Texts, whole: Listening) -> Scores:
    """Highest first impression of each text: [texts]."""
    return np.concatenate([own.impressions(whole) for own in (of.benign, of.harmful)]).astype(np.float64)


def texts(items: Sequence[Item], view: View) -> Table:
    """Items as a table, all of them ordinary: `DevLogits.read` then counts every one."""
    n = len(items)
    labels, names = np.zeros((n, 1), np.float32), [item.slice for item in items]
    return Table(view, (), [item.exchange for item in items], labels, names, names, frozenset(names), n)


def rates(cascade: Cascade, benign: Sequence[Item], view: View, timed: int, seed: int) -> tuple[Rates, Rates]:
    """FLOPs, and seconds over some ordinary requests, each read by every part."""
    turn, whole = cascade.backbone.encoder.turn, cascade.whole if view == "prompt" else None
    picked = np.random.default_rng(seed).permutation(len(benign))[:timed]
    requests = [[turn(t) for t in benign[n].exchange.turns] for n in picked]
    spent = np.array([_seconds(cascade, pieces, view) for pieces in [requests[0], *requests]])[1:].sum(0)  # the first forward is slower
    tokens = sum(len(p.ids) for own in requests for pieces in own for p in pieces)
    screen, *stages, glance, hearing, pieces = spent.tolist()
    by_piece = (glance / pieces, hearing / pieces) if pieces else (0.0, 0.0)
    glimpse = whole.glance.flops_per_token if whole and whole.glance else 0.0
    flops = Rates(0.0, tuple(stage.flops_per_token for stage in cascade.stages), glimpse, whole.flops_per_token if whole else 0.0)
    return flops, Rates(screen / tokens, tuple(own / tokens for own in stages), *by_piece)


def _seconds(cascade: Cascade, turns: Sequence[Sequence[Any]], view: View) -> list[float]:
    """Of the screen, of each stage after it, of the first glance and of the sentence encoder on one whole request; last how many tokens that
    has read."""
    row = [i for pieces in turns for piece in pieces for i in piece.ids]
    begun = perf_counter()
    for pieces in turns:
        cascade.screen.turn(view).feed([piece for piece in pieces if piece.text is not None])
    found = [perf_counter() - begun]
    for stage in cascade.stages:
        begun = perf_counter()
        stage.reader.turn(view).push(stage.backbone.batch([row[-stage.backbone.context :]])[0])
        found.append(perf_counter() - begun)
    whole = cascade.whole if view == "prompt" else None
    if whole is None:
        return [*found, 0.0, 0.0, 0.0]
    begun = perf_counter()
    windows = [window for pieces in turns for window in whole.encoder.rows(text_of(pieces))]
    if whole.glance:
        whole.glance.of(whole.encoder, windows)
    found.append(perf_counter() - begun)
    begun = perf_counter()
    whole.encoder.encode(windows)
    return [*found, perf_counter() - begun, float(sum(map(len, windows)))]


def _figures(of: Texts, way: Way, alone: Scores, flops: Rates, seconds: Rates, rate: float, seed: int) -> dict[str, Any]:
    gates, whole = way.gates, way.whole
    z = of.peaks(gates, whole)
    everything = gates[-1].threshold == ALWAYS
    read = Interval(1.0, 1.0, 1.0, len(of.labels)) if everything else of.benign.read(gates, whole)
    heard = of.benign.heard(whole) if whole else Interval(0.0, 0.0, 0.0, len(of.labels))
    less = bootstrap(partial(_less, rate=rate), of.labels, np.column_stack([z, alone]), seed, groups=of.groups)
    return {
        "threshold": None if everything else gates[-1].threshold, "read": read.as_dict(), "heard": heard.as_dict(),
        "cheaper_flops": flops.cheaper(of.benign, way, seed), "cheaper_seconds": seconds.cheaper(of.benign, way, seed),
        "recall": _recall(of, z, rate, seed), "recall_less_alone": less.as_dict(), "sets": _by_set(of, z, rate, seed),
    }  # fmt: skip


def _recall(of: Texts, z: Scores, rate: float, seed: int) -> dict[str, Any]:
    return bootstrap(partial(recall_at_fpr, rate=rate), of.labels, z, seed, groups=of.groups).as_dict()


def _less(labels: NDArray[np.bool_], z: Scores, rate: float) -> float:
    """Recall by the first column's scores less that by the second's."""
    first, second = (recall_at_fpr(labels, z[:, n], rate) for n in range(2))
    return first - second


def _by_set(of: Texts, z: Scores, rate: float, seed: int) -> dict[str, Any]:
    """Recall on each set, at the threshold of all."""
    benign = np.flatnonzero(~of.labels)
    found = {}
    for name in dict.fromkeys(of.sets):
        chosen = np.concatenate([benign, len(benign) + np.flatnonzero(np.array(of.sets) == name)])
        own = bootstrap(partial(recall_at_fpr, rate=rate), of.labels[chosen], z[chosen], seed, groups=of.groups[chosen])
        found[name] = {**own.as_dict(), "positives": len(chosen) - len(benign)}
    return found


def table(told: dict[str, Any]) -> list[str]:
    """The figures in lines."""

    def cell(i: dict[str, Any], form: str = "{:.3f}") -> str:
        return (
            "-"
            if i["value"] is None
            else f"{form.format(i['value'])} [{', '.join('-' if i[b] is None else form.format(i[b]) for b in ('low', 'high'))}]"
        )

    n = told["n"]
    parts = (f"{name} {told['flops'][name] / 1e9:.2f} GFLOP, {1e3 * own:.1f} ms" for name, own in told["seconds"].items())
    lines = [
        f"{told['guard']['name']}, {told['view']} view: {n['benign']:,} ordinary, {n['harmful']:,} harmful texts; at {told['rate']:.2%} false positives",
        f"a request, each part on all of it: {'; '.join(parts)}",
        f"{'':26} {'encoder reads':>22} {'e (tokens read)':>22} {'cheaper, FLOPs':>22} {'cheaper, seconds':>22} {'recall':>22} {'less the last alone':>24}",
        f"{'the last stage alone':26} {'0':>22} {'1':>22} {'1':>22} {'1':>22} {cell(told['alone']['recall']):>22} {'':>24}",
        f"{'what stands before it':26} {'':>22} {'0':>22} {'':>22} {'':>22} {cell(told['before']['recall']):>22} {'':>24}",
    ]
    for name, own in told["cascades"].items():
        ratios = [f"{cell(own[f'cheaper_{unit}'], '{:.1f}'):>22}" for unit in ("flops", "seconds")]
        less = cell(own["recall_less_alone"], "{:+.3f}")
        lines.append(f"{name:26} {cell(own['heard']):>22} {cell(own['read']):>22} {' '.join(ratios)} {cell(own['recall']):>22} {less:>24}")
    return lines


if __name__ == "__main__":
    main()
