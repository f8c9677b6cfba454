"""What the scorers make of the dev split: every stage's logit of every token, kept on the disk, and running maxima as serving sees them.

Shares and escalation thresholds are chosen on what is kept, so each stage reads the dev split once, however many are tried.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from charter.constitution import Constitution
from charter.models.cascade import Cascade
from charter.models.recalibrate import DevScores
from charter.models.screen import Screen
from charter.models.stage import ALWAYS, PRIOR, Reader, escalated, mixed
from charter.models.trained import Gate, Listening
from charter.models.whole import Heard, impression, joined
from charter.records import View
from charter.statistics import Interval, absent, ratio
from charter.training.table import Table, tables, training_rows

Progress = Callable[[str, int, int], None]
Kept = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Turns and windows."""


class DevLogits:
    """Every stage's logits of a dev table's scored tokens, float32 on disk: [tokens, 1 + stages, heads], turn by turn.

    Where a sentence encoder reads prompts, also what it makes of each window of each turn, float32: [windows, 3 + heads], the number of the
    turn, its word pieces, the first glance, and then its logits.
    """

    def __init__(self, cascade: Cascade, dev: Table, folder: Path, progress: Progress) -> None:
        """Let every stage read the whole table once; or take up what the same scorers have left in the folder: half of a build.

        Raises:
            BackboneError: an exchange is longer than the context.
        """
        self.dev, self.clauses = dev, cascade.clauses
        name = f"dev-{_digest(cascade, dev)}"
        files = Files(folder / f"{name}.f32", folder / f"{name}.windows.npy", folder / f"{name}.npy")
        shape = 1 + len(cascade.stages), 1 + len(cascade.clauses)
        found = files.read(shape)
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            found = _write(cascade, dev, files, progress)
        self._turns, self._windows = found
        self._first = np.searchsorted(self._windows[:, 0], np.arange(len(self._turns) + 1))
        self.tokens = np.zeros(len(dev.exchanges), np.int64)
        """Of each exchange: [exchanges]."""
        np.maximum.at(self.tokens, self._turns[:, 0], self._turns[:, 3])
        self._logits = np.memmap(files.logits, np.float32, "r", shape=(int(self._turns[:, 1].sum()), *shape))

    def scores(self, gates: Sequence[Gate], whole: Listening | None = None) -> DevScores:
        """Running maxima of all heads, with the table's labels and slices; a gate for each of the first stages, the rest left out.

        Args:
            whole: the sentence encoder's part; None leaves it out.
        """
        return dev_scores(self.dev, self.peaks(gates, whole=whole), self.clauses)

    def peaks(self, gates: Sequence[Gate], heads: int | None = None, whole: Listening | None = None) -> NDArray[np.float32]:
        """Highest logit of each exchange: [exchanges, heads], of the first `heads` where a number is given."""
        out = np.full((len(self.tokens), self._logits.shape[2] if heads is None else heads), -np.inf, np.float32)
        for passed in self._passed(gates, heads, whole):
            out[passed.row] = np.maximum(out[passed.row], passed.z.max(0))
        return out

    def impressions(self, whole: Listening) -> NDArray[np.float32]:
        """Highest first impression of each exchange: [exchanges]."""
        out = np.full(len(self.tokens), -np.inf, np.float32)
        for passed in self._passed((), 1, whole):
            out[passed.row] = max(out[passed.row], passed.first)
        return out

    def read(self, gates: Sequence[Gate], whole: Listening | None = None) -> Interval:
        """Share of the tokens of ordinary harmless exchanges that the last of these stages reads, with its interval over exchanges."""
        return self._share(self.tokens_read(gates, whole), self.tokens)

    def tokens_read(self, gates: Sequence[Gate], whole: Listening | None = None) -> NDArray[np.int64]:
        """Tokens of each exchange that the last of these stages reads: [exchanges]."""
        read = np.zeros(len(self.tokens), np.int64)
        for passed in self._passed(gates, 1, whole):
            if passed.asked:
                read[passed.row] = passed.end
        return read

    def glances(self) -> NDArray[np.float32]:
        """Highest first glance of each exchange: [exchanges]."""
        out = np.full(len(self.tokens), -np.inf, np.float32)
        np.maximum.at(out, self._of_windows, self._windows[:, 2])
        return out

    def heard(self, whole: Listening) -> Interval:
        """Share of the sentence encoder's own tokens of ordinary harmless exchanges that it reads, with its interval over exchanges."""
        return self._share(self.pieces_heard(whole.threshold), self.pieces_heard(ALWAYS))

    def pieces_heard(self, threshold: float) -> NDArray[np.int64]:
        """Word pieces of each exchange in the windows whose first glance reaches a threshold: [exchanges]."""
        return np.bincount(self._of_windows, np.where(self._windows[:, 2] < threshold, 0, self._windows[:, 1]), len(self.tokens)).astype(
            np.int64
        )

    @property
    def _of_windows(self) -> NDArray[np.int64]:
        """The exchange of each window."""
        return np.asarray(self._turns[self._windows[:, 0].astype(np.int64), 0])

    def _share(self, parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> Interval:
        """Of ordinary exchanges."""
        rows = self.ordinary
        return ratio(parts[rows], wholes[rows], 0) if rows.any() else absent(0)

    @property
    def ordinary(self) -> NDArray[np.bool_]:
        """[exchanges]: harmless, and no near miss."""
        return self.dev.is_ordinary

    def _passed(self, gates: Sequence[Gate], heads: int | None, whole: Listening | None) -> Iterator[Passed]:
        """Each turn after these stages, and after the sentence encoder where it takes part."""
        start = 0
        for number, (row, tokens, end, _) in enumerate(self._turns.tolist()):
            apart = np.asarray(self._logits[start : start + tokens, :, :heads])
            z, asked = apart[:, 0], np.ones(tokens, bool)
            first, e = None, None
            if whole:
                e = self._e(number, whole.threshold)[: z.shape[1]]
                first = impression(z[:, 0].max(), e[0], whole.lead)
            for stage, gate in enumerate(gates, 1):
                asked = escalated(z if first is None or stage > 1 else np.full_like(z, first), gate.threshold)
                z = mixed(z, np.where(asked[:, None], apart[:, stage], np.float32(PRIOR)), gate.mix)
            z = z if whole is None or e is None else joined(z, e, whole.mix)
            yield Passed(row, end, z, bool(asked.any()), 0.0 if first is None else first)
            start += tokens

    def _e(self, turn: int, threshold: float) -> NDArray[np.float32]:
        """What the sentence encoder makes of a turn where it reads the windows whose glance reaches a threshold: [heads]."""
        own = self._windows[self._first[turn] : self._first[turn + 1]]
        e: NDArray[np.float32] = np.where(own[:, 2:3] < threshold, np.float32(PRIOR), own[:, 3:]).max(0)
        return e


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


@dataclass(frozen=True, slots=True)
class Files:
    """Where the logits are kept; the turns are written last, so where they are, all is."""

    logits: Path
    windows: Path
    turns: Path

    def read(self, shape: tuple[int, int]) -> Kept | None:
        """Turns and windows that an earlier run left; None where there is nothing whole, or it has other than these [stages, heads]."""
        try:
            turns, windows = (np.load(path, allow_pickle=False) for path in (self.turns, self.windows))
            size = self.logits.stat().st_size
        except (OSError, ValueError, EOFError):
            return None  # none yet, or damaged: it is made anew
        whole = turns.ndim == 2 and turns.shape[1] == 4 and turns.dtype == np.int64
        whole = whole and windows.ndim == 2 and windows.shape[1] == 3 + shape[1] and windows.dtype == np.float32
        return (turns, windows) if whole and size == 4 * int(turns[:, 1].sum()) * shape[0] * shape[1] else None


def _write(cascade: Cascade, dev: Table, files: Files, progress: Progress) -> Kept:
    """All files, to the side and then renamed; returns the turns (of each its row, its scored tokens, the tokens of the row up to its end
    and all of the row's) and the windows."""
    turns: list[tuple[int, int, int, int]] = []
    windows = [np.empty((0, 4 + len(cascade.clauses)), np.float32)]
    order = sorted(range(len(dev.exchanges)), key=lambda row: sum(len(turn.content) for turn in dev.exchanges[row].turns))
    with _aside(files.logits) as file:
        for number, (row, runs) in enumerate(
            zip(order, cascade.reading_all().apart([dev.exchanges[row] for row in order], dev.view), strict=True)
        ):
            ends = np.cumsum([sum(len(piece.ids) for piece in run.pieces) for run in runs]).tolist()
            for run, end in zip(runs, ends, strict=True):
                if run.view == dev.view:
                    file.write(np.stack(run.apart, 1).astype(np.float32).tobytes())
                    windows += [_windows(len(turns), run.heard)] if run.heard else []
                    turns.append((row, len(run.z), end, ends[-1]))
            progress(f"calibration, {dev.view} view", number + 1, len(order))
    found = np.array(turns, np.int64), np.concatenate(windows)
    for path, array in ((files.windows, found[1]), (files.turns, found[0])):
        with _aside(path) as file:
            np.save(file, array)
    return found


def _windows(turn: int, heard: Heard) -> NDArray[np.float32]:
    """What the sentence encoder made of a turn, as it is kept."""
    own = np.column_stack([np.full(len(heard.sizes), turn), heard.sizes, heard.glances, heard.e])
    return own.astype(np.float32)  # whole numbers are exact to 16 million


@contextmanager
def _aside(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name once the block has ended well."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    with aside.open("wb") as file:
        yield file
    os.replace(aside, path)


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
        if glance := whole.glance:
            sha.update(
                glance.layer.inner.tobytes() + glance.layer.bias.tobytes() + glance.layer.outer.tobytes() + repr(glance.bias).encode()
            )
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
