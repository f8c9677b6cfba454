"""What the scorers make of the dev split: every stage's logit of every token, kept on the disk, and running maxima as serving sees them.

Shares and escalation thresholds are chosen on what is kept, so each stage reads the dev split once, however many are tried.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.models.calibrate import NEAR_MISS
from charter.models.cascade import Cascade
from charter.models.recalibrate import DevScores
from charter.models.stage import PRIOR, escalated, mixed
from charter.models.trained import Gate
from charter.records import View
from charter.statistics import Interval, absent, ratio
from charter.training.table import Table, tables, training_rows

Progress = Callable[[str, int, int], None]


class DevLogits:
    """Every stage's logits of a dev table's scored tokens, in an unnamed file: [tokens, 1 + stages, heads], turn by turn."""

    def __init__(self, cascade: Cascade, dev: Table, progress: Progress) -> None:
        """Let every stage read the whole table once.

        Raises:
            BackboneError: an exchange is longer than the context.
        """
        self.dev, self.clauses, self.seed = dev, cascade.clauses, 0
        self._turns: list[tuple[int, int, int]] = []  # its row, its scored tokens, the tokens of the row up to its end
        self._lengths = np.zeros(len(dev.exchanges), np.int64)
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the map below keeps it)
        order = sorted(range(len(dev.exchanges)), key=lambda row: sum(len(turn.content) for turn in dev.exchanges[row].turns))
        for number, (row, runs) in enumerate(zip(order, cascade.reading_all().apart([dev.exchanges[row] for row in order]), strict=True)):
            for run in runs:
                self._lengths[row] += sum(len(piece.ids) for piece in run.pieces)
                if run.view == dev.view:
                    file.write(np.stack(run.apart, 1).astype(np.float32).tobytes())
                    self._turns.append((row, len(run.z), int(self._lengths[row])))
            progress(f"calibration, {dev.view} view", number + 1, len(order))
        file.flush()
        shape = sum(n for _, n, _ in self._turns), 1 + len(cascade.stages), 1 + len(cascade.clauses)
        self._logits = np.memmap(file, np.float32, "r", shape=shape)

    def scores(self, gates: Sequence[Gate]) -> DevScores:
        """Running maxima of all heads, with the table's labels and slices; a gate for each of the first stages, the rest left out."""
        return dev_scores(self.dev, self.peaks(gates), self.clauses)

    def peaks(self, gates: Sequence[Gate], heads: int | None = None) -> NDArray[np.float32]:
        """Highest logit of each exchange: [exchanges, heads], of the first `heads` where a number is given."""
        out = np.full((len(self._lengths), self._logits.shape[2] if heads is None else heads), -np.inf, np.float32)
        for row, _, z, _ in self._passed(gates, heads):
            out[row] = np.maximum(out[row], z.max(0))
        return out

    def read(self, gates: Sequence[Gate]) -> Interval:
        """Share of the tokens of ordinary harmless exchanges that the last of these stages reads, with its interval over exchanges."""
        read = np.zeros(len(self._lengths), np.int64)
        for row, end, _, asked in self._passed(gates, 1):
            if asked:
                read[row] = end
        rows = self.ordinary
        return ratio(read[rows], self._lengths[rows], self.seed) if rows.any() else absent(0)

    @property
    def ordinary(self) -> NDArray[np.bool_]:
        """[exchanges]: harmless, and no near miss."""
        near = [name.startswith(NEAR_MISS) and name not in self.dev.ordinary for name in self.dev.slices]
        return (self.dev.labels[:, 0] < 0.5) & ~np.array(near, bool)

    def _passed(self, gates: Sequence[Gate], heads: int | None) -> Iterator[tuple[int, int, NDArray[np.float32], bool]]:
        """Each turn's row and end, its logits after these stages, and whether the last of them was asked."""
        start = 0
        for row, tokens, end in self._turns:
            apart = np.asarray(self._logits[start : start + tokens, :, :heads])
            z, asked = apart[:, 0], np.ones(tokens, bool)
            for number, gate in enumerate(gates, 1):
                asked = escalated(z, gate.threshold)
                z = mixed(z, np.where(asked[:, None], apart[:, number], np.float32(PRIOR)), gate.mix)
            yield row, end, z, bool(asked.any())
            start += tokens


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
    """The dev split of a folder of examples under a guard's scorers as they are served, both views.

    Raises:
        DataError: the examples can't be read, belong to another constitution, or are too few on one side.
    """
    data_tables = tables(training_rows(data), constitution)
    cascade.hurry()
    views: tuple[View, ...] = ("prompt", "exchange")
    return {
        view: dev_scores(data_tables[view, "dev"], _served(cascade, data_tables[view, "dev"], progress), cascade.clauses) for view in views
    }


def _served(cascade: Cascade, dev: Table, progress: Progress) -> NDArray[np.float32]:
    out = np.empty((len(dev.exchanges), 1 + len(cascade.clauses)), np.float32)
    order = sorted(range(len(dev.exchanges)), key=lambda row: sum(len(turn.content) for turn in dev.exchanges[row].turns))
    for number, (row, scored) in enumerate(zip(order, cascade.batch([dev.exchanges[row] for row in order]), strict=True)):
        logits = scored.logits(dev.view)
        assert logits is not None
        out[row] = logits.max(0)
        progress(f"calibration, {dev.view} view", number + 1, len(order))
    return out
