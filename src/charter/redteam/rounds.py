"""The loop: train, attack, pair, train again. `run` writes each round's rows beside the examples, and rounds.json.

A killed run goes on at what is missing: a round's rows are used again where they were made by the same settings against the same
guard, and a guard's figures where it was trained on the same files.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from charter.constitution import Constitution
from charter.errors import DataError
from charter.records import read_examples, write_examples
from charter.redteam import ledger as book
from charter.redteam.arsenal import Arsenal
from charter.redteam.attacks import Effort, hunt
from charter.redteam.guarded import Guarded, Reopen, Trainer
from charter.redteam.heldout import HeldOut, held_out_set, report
from charter.redteam.ledger import Attack, FamilyCount, Ledger, Measured, Round, fingerprint, rows_of, set_aside
from charter.redteam.mates import Material, material, pairs
from charter.synthesis.families import held

Progress = Callable[[str, int, int], None]
BLOCK = 200
"""Held-out prompts scored together: often enough to show progress, enough for batches of like length."""
Said = Callable[[Round], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a campaign may be told."""

    rounds: int = 3
    seed: int = 0
    """Drives every draw."""
    effort: Effort = field(default_factory=Effort)
    per_family: int = 60
    """Held-out prompts of each label in each held-out family, at most."""
    trained_with: str = ""
    """Describes the trainer's options: other options, other guards."""


def run(
    data: Path,
    constitution: Constitution,
    trainer: Trainer,
    arsenal: Arsenal,
    options: Options,
    *,
    reopen: Reopen = lambda _: None,
    progress: Progress = lambda *_: None,
    said: Said = lambda _: None,
) -> Ledger:
    """Train the guard, then `options.rounds` times attack it, write what got through beside the examples, and train it again.

    Args:
        data: the folder of an examples.parquet.
        said: called with each round once it is done.

    Raises:
        DataError: the examples or rounds.json can't be read, a held-out family is in the arsenal, or there is too little to work with.
    """
    leaked = [name for name in arsenal.names if held(name, arsenal.held_out)]
    if leaked:
        raise DataError(f"the family {leaked[0]!r} is both held out and used in attacks; it can be only one of them")
    stock = material(read_examples(data), constitution)
    measured_on = held_out_set(stock.test, arsenal, options.seed, options.per_family)
    earlier = set_aside(data, options.rounds)
    if earlier.heldout_set != measured_on.digest or earlier.seed != options.seed:
        earlier = Ledger()  # measured on another set: the rounds are made anew
    fresh = Ledger(seed=options.seed, held_out=list(arsenal.held_out), heldout_set=measured_on.digest)
    campaign = _Campaign(data, trainer, reopen, arsenal, options, stock, measured_on, earlier, fresh, progress)
    for number in range(options.rounds + 1):
        attack = campaign.attacked(number) if number else None
        said(campaign.trained(number, attack))
    campaign.guard()  # the guard that stands at the end is the last round's, even where nothing was left to do
    campaign.write()
    return campaign.ledger


@dataclass
class _Campaign:
    data: Path
    trainer: Trainer
    reopen: Reopen
    arsenal: Arsenal
    options: Options
    stock: Material
    heldout: HeldOut
    earlier: Ledger
    ledger: Ledger
    progress: Progress
    current: Guarded | None = None

    @property
    def files(self) -> list[Path]:
        """The examples and the rows of the rounds so far."""
        done = [entry.round for entry in self.ledger.rounds if entry.attack]
        return [self.data / "examples.parquet", *(rows_of(self.data, number) for number in done)]

    def guard(self) -> Guarded:
        """The guard of the last round in the ledger, opened or trained again if it is not at hand."""
        if self.current is None:
            last = self.ledger.rounds[-1]
            assert last.guard is not None
            self.current = self.reopen(last.guard.hash) or self.trainer(self.files)
            if self.current.hash != last.guard.hash:  # another machine, another guard: what was measured was not this one
                self.ledger.rounds[-1] = last.model_copy(update={"guard": self._measured(self.current, last.guard.rows, 0.0)})
        return self.current

    def trained(self, number: int, attack: Attack | None) -> Round:
        """Train on all rows so far and measure; or find that this was done before."""
        self.ledger.rounds.append(Round(round=number, attack=attack))
        rows = fingerprint(self.files, self.options.trained_with)
        before = self._earlier(number)
        if before and before.guard and before.guard.rows == rows:
            self.current = None
            self.ledger.rounds[-1] = before.model_copy(update={"attack": attack})
            return self.ledger.rounds[-1]
        started = time.monotonic()
        self.current = self.trainer(self.files)
        measured = self._measured(self.current, rows, time.monotonic() - started)
        self.ledger.rounds[-1] = Round(round=number, attack=attack, guard=measured)
        self.write()
        return self.ledger.rounds[-1]

    def attacked(self, number: int) -> Attack:
        """Attack the guard of the round before and write the round's rows; or find that this was done before."""
        file, before = rows_of(self.data, number), self._earlier(number)
        last = self.ledger.rounds[-1].guard
        old = before.attack if before else None
        settings = self._settings()
        if last and old and (old.against, old.settings) == (last.hash, settings) and file.is_file() and book.sha256(file) == old.file:
            self.stock.ids.update(example.id for example in read_examples(file))
            return old
        for later in range(number, self.options.rounds + 1):
            rows_of(self.data, later).unlink(missing_ok=True)  # made against other guards: training must not see them
        attack = self._made(number, file, settings)
        self.ledger.rounds.append(Round(round=number, attack=attack))
        self.write()
        self.ledger.rounds.pop()
        return attack

    def write(self) -> None:
        """Write the ledger; earlier rounds that this run has not come to yet stay in it, aside."""
        rest = [entry for entry in (*self.earlier.rounds, *self.earlier.aside) if entry.round >= len(self.ledger.rounds)]
        book.write(self.data, self.ledger.model_copy(update={"aside": rest}))

    def _made(self, number: int, file: Path, settings: str) -> Attack:
        """Attack, pair and write."""
        guarded, started = self.guard(), time.monotonic()
        seed, effort = f"redteam:{self.options.seed}:{number}", self.options.effort
        parents = Random(seed).sample(self.stock.restricted, min(effort.parents, len(self.stock.restricted)))
        found = hunt(parents, guarded, self.arsenal, effort, seed, self._counter(f"attacks, round {number}", len(parents)))
        steps = self._counter(f"harmless mates, round {number}", len(found.kept))
        matched = pairs(found.kept, self.stock, guarded, self.arsenal, effort, seed, steps)
        rows = [candidate.row(f"redteam:{number}") for pair in matched for candidate in pair]
        try:
            write_examples(file, rows)
        except OSError as error:
            raise DataError(f"{file}: can't be written ({error.strerror or error}); make room and run the same command again") from error
        bandit, seconds = found.bandit, round(time.monotonic() - started, 1)
        families = {
            name: FamilyCount(tried=bandit.tried[name], through=bandit.through[name], lost=bandit.lost[name]) for name in bandit.names
        }
        return Attack(
            against=guarded.hash, settings=settings, file=book.sha256(file), parents=found.parents, missed_plain=found.missed_plain,
            tried=found.tried, got_through=found.got_through, kept=len(matched), added=len(rows), seconds=seconds, families=families,
        )  # fmt: skip

    def _counter(self, name: str, total: int) -> Callable[[int], None]:
        """Adds up the steps of a stage."""
        done = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            self.progress(name, done, total)

        return step

    def _measured(self, guarded: Guarded, rows: str, seconds: float) -> Measured:
        started = time.monotonic()
        exchanges = [row.exchange for row in self.heldout.rows]
        step, parts = self._counter(f"held-out families, round {len(self.ledger.rounds) - 1}", len(exchanges)), []
        for start in range(0, len(exchanges), BLOCK):
            parts.append(guarded.scores(exchanges[start : start + BLOCK]))
            step(len(parts[-1]))
        scores = np.concatenate(parts)
        first = self.ledger.rounds[0].guard if len(self.ledger.rounds) > 1 else None
        figures = report(self.heldout, scores, guarded.threshold, np.array(first.scores) if first else None, self.options.seed)
        seconds = round(seconds + time.monotonic() - started, 1)
        return Measured(rows=rows, hash=guarded.hash, threshold=guarded.threshold, seconds=seconds, heldout=figures, scores=scores.tolist())

    def _settings(self) -> str:
        """Digest of all that attacks depend on besides the guard."""
        value = [self.options.seed, asdict(self.options.effort), self.arsenal.names, fingerprint(self.files)]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

    def _earlier(self, number: int) -> Round | None:
        return self.earlier.rounds[number] if number < len(self.earlier.rounds) else None
