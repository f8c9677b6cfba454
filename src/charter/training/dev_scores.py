"""What the scorers make of the dev split: every stage's logit of every token, kept on the disk, and running maxima as serving sees them.

Shares and escalation thresholds are chosen on what is kept, so each stage reads the dev split once, however many are tried.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.models.calibrate import NEAR_MISS
from charter.models.cascade import Cascade
from charter.models.recalibrate import DevScores
from charter.models.screen import Screen
from charter.models.stage import PRIOR, Reader, escalated, mixed
from charter.models.trained import Gate, Listening
from charter.models.whole import impression, joined
from charter.records import View
from charter.statistics import Interval, absent, ratio
from charter.training.table import Table, tables, training_rows

Progress = Callable[[str, int, int], None]


class DevLogits:
    """Every stage's logits of a dev table's scored tokens, float32 on disk: [tokens, 1 + stages, heads], turn by turn.

    Of the prompt view, a sentence encoder's come last, if there is one.
    """

    def __init__(self, cascade: Cascade, dev: Table, folder: Path, progress: Progress) -> None:
        """Let every stage read the whole table once; or take up what the same scorers have left in the folder: half of a build.

        Raises:
            BackboneError: an exchange is longer than the context.
        """
        self.dev, self.clauses = dev, cascade.clauses
        name = f"dev-{_digest(cascade, dev)}"
        logits, turns = folder / f"{name}.f32", folder / f"{name}.npy"
        found = _turns(turns)
        last = cascade.whole is not None and dev.view == "prompt"
        stages = 1 + len(cascade.stages) + last, 1 + len(cascade.clauses)
        if found is None or not logits.is_file() or logits.stat().st_size != 4 * int(found[:, 1].sum()) * stages[0] * stages[1]:
            folder.mkdir(parents=True, exist_ok=True)
            found = _write(cascade, dev, logits, turns, progress)
        self._turns = found
        self._lengths = np.zeros(len(dev.exchanges), np.int64)
        np.maximum.at(self._lengths, found[:, 0], found[:, 3])
        self._logits = np.memmap(logits, np.float32, "r", shape=(int(found[:, 1].sum()), *stages))

    def scores(self, gates: Sequence[Gate], whole: Listening | None = None) -> DevScores:
        """Running maxima of all heads, with the table's labels and slices; a gate for each of the first stages, the rest left out.

        Args:
            whole: the sentence encoder's part; None leaves it out.
        """
        return dev_scores(self.dev, self.peaks(gates, whole=whole), self.clauses)

    def peaks(self, gates: Sequence[Gate], heads: int | None = None, whole: Listening | None = None) -> NDArray[np.float32]:
        """Highest logit of each exchange: [exchanges, heads], of the first `heads` where a number is given."""
        out = np.full((len(self._lengths), self._logits.shape[2] if heads is None else heads), -np.inf, np.float32)
        for passed in self._passed(gates, heads, whole):
            out[passed.row] = np.maximum(out[passed.row], passed.z.max(0))
        return out

    def impressions(self, whole: Listening) -> NDArray[np.float32]:
        """Highest first impression of each exchange: [exchanges]."""
        out = np.full(len(self._lengths), -np.inf, np.float32)
        for passed in self._passed((), 1, whole):
            out[passed.row] = max(out[passed.row], passed.first)
        return out

    def read(self, gates: Sequence[Gate], whole: Listening | None = None) -> Interval:
        """Share of the tokens of ordinary harmless exchanges that the last of these stages reads, with its interval over exchanges."""
        read = np.zeros(len(self._lengths), np.int64)
        for passed in self._passed(gates, 1, whole):
            if passed.asked:
                read[passed.row] = passed.end
        return self._share(read)

    def heard(self, whole: Listening) -> Interval:
        """The same of the turns that the sentence encoder reads."""
        read = np.zeros(len(self._lengths), np.int64)
        start = 0
        for row, tokens, _, _ in self._turns.tolist():
            if not self._logits[start : start + tokens, 0, 0].max() < whole.threshold:
                read[row] += tokens
            start += tokens
        scored = np.bincount(self._turns[:, 0], self._turns[:, 1], len(self._lengths))
        return ratio(read[self.ordinary], scored[self.ordinary], 0) if self.ordinary.any() else absent(0)

    def _share(self, read: NDArray[np.int64]) -> Interval:
        """Of all tokens of ordinary exchanges."""
        rows = self.ordinary
        return ratio(read[rows], self._lengths[rows], 0) if rows.any() else absent(0)

    @property
    def ordinary(self) -> NDArray[np.bool_]:
        """[exchanges]: harmless, and no near miss."""
        near = [name.startswith(NEAR_MISS) and name not in self.dev.ordinary for name in self.dev.slices]
        return np.asarray((self.dev.labels[:, 0] < 0.5) & ~np.array(near, bool))

    def _passed(self, gates: Sequence[Gate], heads: int | None, whole: Listening | None) -> Iterator[Passed]:
        """Each turn after these stages, and after the sentence encoder where it takes part."""
        start = 0
        for row, tokens, end, _ in self._turns.tolist():
            apart = np.asarray(self._logits[start : start + tokens, :, :heads])
            z, asked = apart[:, 0], np.ones(tokens, bool)
            first, e = None, apart[-1, -1]
            if whole:
                loud = z[:, 0].max()
                e = np.full_like(e, PRIOR) if loud < whole.threshold else e
                first = impression(loud, e[0], whole.lead)
            for number, gate in enumerate(gates, 1):
                asked = escalated(z if first is None or number > 1 else np.full_like(z, first), gate.threshold)
                z = mixed(z, np.where(asked[:, None], apart[:, number], np.float32(PRIOR)), gate.mix)
            yield Passed(row, end, joined(z, e, whole.mix) if whole else z, bool(asked.any()), 0.0 if first is None else float(first))
            start += tokens


@dataclass(frozen=True, slots=True)
class Passed:
    """A turn after some of the stages."""

    row: int
    """Of its exchange."""
    end: int
    """Tokens of the exchange up to its end."""
    z: NDArray[np.float32]
    """Logits [tokens, heads]."""
    asked: bool
    """Whether the last of the stages was asked."""
    first: float
    """The first impression; 0 without a sentence encoder."""


def _write(cascade: Cascade, dev: Table, logits: Path, turns: Path, progress: Progress) -> NDArray[np.int64]:
    """Both files, to the side and then renamed, the turns last; returns them: of each turn its row, its scored tokens, the tokens of the
    row up to its end and all of the row's."""
    found: list[tuple[int, int, int, int]] = []
    order = sorted(range(len(dev.exchanges)), key=lambda row: sum(len(turn.content) for turn in dev.exchanges[row].turns))
    aside = logits.with_name(f"{logits.name}.{os.getpid()}.part")
    with aside.open("wb") as file:
        for number, (row, runs) in enumerate(
            zip(order, cascade.reading_all().apart([dev.exchanges[row] for row in order], dev.view), strict=True)
        ):
            ends = np.cumsum([sum(len(piece.ids) for piece in run.pieces) for run in runs]).tolist()
            for run, end in zip(runs, ends, strict=True):
                if run.view == dev.view:
                    file.write(np.stack(run.apart, 1).astype(np.float32).tobytes())
                    found.append((row, len(run.z), end, ends[-1]))
            progress(f"calibration, {dev.view} view", number + 1, len(order))
    os.replace(aside, logits)
    out = np.array(found, np.int64)
    aside = turns.with_name(f"{turns.name}.{os.getpid()}.part")
    with aside.open("wb") as file:
        np.save(file, out)
    os.replace(aside, turns)
    return out


def _turns(path: Path) -> NDArray[np.int64] | None:
    """The turns that an earlier run left; None where there is nothing whole."""
    try:
        found: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # none yet, or damaged: it is made anew
    return found if found.ndim == 2 and found.shape[1] == 4 and found.dtype == np.int64 else None


def _digest(cascade: Cascade, dev: Table) -> str:
    """Tells all that the logits depend on: 16 hex digits."""
    view = dev.view
    sha = hashlib.sha256(repr((view, PRIOR, cascade.probe.averaging)).encode())
    for stage in cascade.stages:
        sha.update(repr((stage.backbone.fingerprint, stage.backbone.dtype, stage.backbone.layers)).encode())
    scorers: list[Screen | Reader] = [cascade.probe, cascade.screen, *([cascade.head.reader] if cascade.head else [])]
    for scorer in scorers:
        sha.update(scorer.weights[view].tobytes() + scorer.biases[view].tobytes())
    if hidden := cascade.probe.hidden.get(view):
        sha.update(hidden.inner.tobytes() + hidden.bias.tobytes() + hidden.outer.tobytes())
    if ensemble := cascade.probe.ensemble.get(view):
        sha.update(ensemble.serving.weights.tobytes() + ensemble.serving.biases.tobytes())
    if (whole := cascade.whole) and view == "prompt":
        sha.update(whole.encoder.fingerprint.encode() + whole.bias.tobytes())
        sha.update(whole.layer.inner.tobytes() + whole.layer.bias.tobytes() + whole.layer.outer.tobytes())
    for exchange in dev.exchanges:
        sha.update(repr(exchange.turns).encode())
    return sha.hexdigest()[:16]


def dev_scores(dev: Table, logits: NDArray[np.float32], clauses: Sequence[str]) -> DevScores:
    """The scores [exchanges, heads] of a dev table's exchanges with their labels and slices; `clauses` are those of the heads."""
    labels = np.zeros((len(dev.exchanges), 1 + len(clauses)), bool)
    labels[:, 0] = dev.labels[:, 0] > 0.5
    for head, clause in enumerate(clauses, 1):
        if clause in dev.clauses:
            labels[:, head] = dev.labels[:, 1 + dev.clauses.index(clause)] > 0.5
    names = tuple(dict.fromkeys(dev.slices))
    place = {name: n for n, name in enumerate(names)}
    return DevScores(logits, labels, names, np.array([place[name] for name in dev.slices], np.int32))


def score_dev(cascade: Cascade, data: Path, constitution: Constitution, progress: Progress = lambda *_: None) -> dict[View, DevScores]:
    """The dev split of a folder of examples under a guard's scorers as they are served, by view.

    Raises:
        DataError: the examples can't be read, belong to another constitution, or are too few on one side.
    """
    data_tables = tables(training_rows(data), constitution, cascade.views)
    cascade.hurry()
    return {
        view: dev_scores(data_tables[view, "dev"], _served(cascade, data_tables[view, "dev"], progress), cascade.clauses)
        for view in cascade.views
    }


def _served(cascade: Cascade, dev: Table, progress: Progress) -> NDArray[np.float32]:
    out = np.empty((len(dev.exchanges), 1 + len(cascade.clauses)), np.float32)
    order = sorted(range(len(dev.exchanges)), key=lambda row: sum(len(turn.content) for turn in dev.exchanges[row].turns))
    for number, (row, scored) in enumerate(
        zip(order, cascade.batch([dev.exchanges[row] for row in order], prompts=dev.view == "prompt"), strict=True)
    ):
        logits = scored.logits(dev.view)
        assert logits is not None
        out[row] = logits.max(0)
        progress(f"calibration, {dev.view} view", number + 1, len(order))
    return out
