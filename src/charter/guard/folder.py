"""A guard is a folder: guard.json, constitution.yaml, probe and screen as safetensors, card.md. Everything needed to serve.

A folder from a stranger is untrusted input: hashes, schema, names, shapes and finiteness are checked before anything is used,
and nothing in it can run code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from charter.constitution import Constitution, parse
from charter.errors import ConstitutionError, GuardError
from charter.guard.policy import JointJudge
from charter.guard.record import GuardRecord, PointName, PointRecord, Thresholds
from charter.guard.scorers import HEAD, MEMBERS, WHOLE, read_cascade
from charter.guard.session import GuardSession
from charter.guard.shipped import names, place
from charter.guard.tokens import Part, TokenScore
from charter.models.calibrate import ViewPolicy
from charter.records import REPLY_VIEWS, Exchange, Turn, Verdict, View

if TYPE_CHECKING:
    from charter.guard.holdback import OpenGuard
    from charter.models.cascade import Cascade
    from charter.models.scored import Scored

SCHEMA = 1
FILES = ("constitution.yaml", "probe.safetensors", "screen.safetensors", "card.md")
KEPT = "calibration.safetensors"
OPTIONAL = (KEPT, HEAD, MEMBERS, WHOLE)
"""The dev split's scores, for `charter calibrate` alone, which older guards lack; a value head; an ensemble's members; what reads whole
turns."""
MAX_FILE_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Guard:
    """A loaded guard. Implements `guard.holdback.GuardLike`."""

    record: GuardRecord
    constitution: Constitution
    cascade: Cascade
    hash: str
    """Of the folder, and of the operating point where it is not the quiet one: verdicts with one hash follow one rule."""
    point: PointName = "quiet"
    lookahead: int = 0
    """Tokens of a reply that are scored after one before it may leave."""

    @property
    def budgets(self) -> tuple[float, float]:
        """Of ordinary traffic and of near misses, at the operating point."""
        at = self.record if self._balanced is None else self._balanced
        return at.budget, at.near_miss_budget

    @property
    def _balanced(self) -> PointRecord | None:
        return self.record.balanced if self.point == "balanced" else None

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def clauses(self) -> tuple[str, ...]:
        return self.cascade.clauses

    @property
    def policies(self) -> dict[View, ViewPolicy]:
        return {view: r.policy(self.record.clauses, self.thresholds[view]) for view, r in self.record.views.items()}

    @property
    def thresholds(self) -> Mapping[View, Thresholds]:
        """Of all views, at the operating point."""
        return self.record.views if self._balanced is None else self._balanced.views

    def open(self, turns: tuple[Turn, ...]) -> GuardSession:
        """Judge a conversation and get ready for its reply.

        Raises:
            BackboneError: the conversation is longer than the context.
        """
        return GuardSession(self.cascade.open(turns), self.policies, self.clauses, self.lookahead)

    def clause_scores(self, session: OpenGuard) -> dict[str, float]:
        """Highest calibrated probability of each restricted clause over all that the session has seen."""
        assert isinstance(session, GuardSession)
        return session.clause_scores

    @property
    def cutoffs(self) -> Mapping[Part, float]:
        """Probability from which each part is flagged, of a reply by the first view that judges it (`guard.tokens`)."""
        reply = next(view for view in REPLY_VIEWS if view in self.policies)
        return {"prompt": self.policies["prompt"].threshold, "reply": self.policies[reply].threshold}

    @property
    def titles(self) -> Mapping[str, str]:
        """Restricted clauses by id."""
        return {clause.id: clause.title for clause in self.constitution.restricted if clause.id in self.clauses}

    def token_scores(self, session: OpenGuard, part: Part, start: int) -> list[TokenScore]:
        """Each token's score in one part of a session, from a token on (`guard.tokens`)."""
        assert isinstance(session, GuardSession)
        return session.token_scores(part, start)

    def held_out(self) -> Guard:
        """The same guard with the members of its ensemble that were kept apart in place of those that serve: the judge of an attack.

        Raises:
            DataError: it has none.
        """
        cascade = replace(self.cascade, probe=self.cascade.probe.held_out())
        return replace(self, cascade=cascade, hash=f"{self.hash}-held-out")

    def judge(self, scored: Scored) -> Verdict:
        """The verdict on a whole exchange: on its reply where there is one, else on its prompt."""
        return self.judged(scored).verdict

    def judged(self, scored: Scored) -> JointJudge:
        """The judge that has seen a whole exchange: each view's verdict, and theirs together."""
        by = scored.judged
        judge = JointJudge({view: self.policies[view] for view in by}, self.clauses)
        for n in range(len(scored.judged_texts)):
            judge.push({view: z[n] for view, z in by.items()})
        return judge

    def score(self, exchanges: Iterable[Exchange]) -> Iterator[tuple[Scored, Verdict]]:
        """Score and judge whole exchanges, in order, by what each is judged by (`Scored.judged`)."""
        for scored in self.cascade.batch(exchanges, prompts=False):
            yield scored, self.judge(scored)


def load(folder: Path, backbone: str | None = None, point: PointName = "quiet", generates: bool = False) -> Guard:
    """Load a guard folder after checking it.

    Args:
        folder: the folder, or the name of a shipped guard.
        backbone: where the backbone lies now, if not where the guard was trained; it must be the same model.
        point: the operating point at which it judges.
        generates: load the whole model, so that it can answer too and be read while it does (`guard.in_process`).

    Raises:
        GuardError: it is missing, damaged, foreign or of another schema version.
        BackboneError: its backbone can't be loaded.
    """
    folder = place(folder)
    record, digest = read_record(folder)
    try:
        constitution = parse((folder / "constitution.yaml").read_text(encoding="utf-8"), str(folder / "constitution.yaml"))
    except (ConstitutionError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise GuardError(f"{folder}: its constitution.yaml is damaged ({reason}); build the guard again") from error
    if constitution.hash != record.constitution_hash:
        raise GuardError(f"{folder}: constitution.yaml is not the one that the guard was trained on; build the guard again")
    unknown = set(record.clauses) - {c.id for c in constitution.restricted}
    if unknown:
        raise GuardError(f"{folder}: has a head for {sorted(unknown)[0]!r}, which is no restricted clause of its constitution")
    if generates and HEAD in record.files:
        raise GuardError(
            f"{folder}: has a value head, whose weights are not those of the model that answers; serve it without `--probe upstream`"
        )
    if generates and "reply" in record.views:
        raise GuardError(
            f"{folder}: has the view reply, which must not see the prompt that the model which answers has read; "
            "serve it without `--probe upstream`"
        )
    if point == "balanced" and record.balanced is None:
        raise GuardError(f"{folder}: has no balanced operating point; `charter calibrate {folder}` gives it one")
    cascade = read_cascade(folder, record, backbone or record.backbone, generates)
    cascade.pack()
    return Guard(record, constitution, cascade, digest if point == "quiet" else f"{digest}-{point}", point)


def read_record(folder: Path) -> tuple[GuardRecord, str]:
    """guard.json of a folder, all file hashes checked, and the guard's own hash (16 hex digits).

    Raises:
        GuardError: it is missing, damaged, foreign or of another schema version.
    """
    path = folder / "guard.json"
    if not path.is_file() or path.is_symlink():
        known = f", or name a shipped one: {', '.join(names())}" if names() else ""
        raise GuardError(f"{folder}: not a guard (it has no guard.json); make one with `charter build` or `charter train`{known}")
    try:
        record = GuardRecord.model_validate_json(_bounded(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise GuardError(f"{path}: {where}: {first['msg']}; this version reads schema {SCHEMA}, build the guard again") from error
    if set(record.files) - set(OPTIONAL) != set(FILES):
        raise GuardError(f"{path}: must list the files {', '.join(FILES)}; build the guard again")
    _check_views(path, record)
    for name, digest in record.files.items():
        file = folder / name
        if not file.is_file() or file.is_symlink():
            raise GuardError(f"{file}: is missing; copy the whole folder or build the guard again")
        if file.stat().st_size > MAX_FILE_BYTES or sha256(file) != digest:
            raise GuardError(f"{file}: is not what guard.json says (SHA-256 differs); the folder is damaged or was changed")
    return record, hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _check_views(path: Path, record: GuardRecord) -> None:
    if (record.ensemble is not None) != (MEMBERS in record.files):
        raise GuardError(f"{path}: {MEMBERS} and what it says of an ensemble do not go together; build the guard again")
    if (record.whole is not None) != (WHOLE in record.files):
        raise GuardError(f"{path}: {WHOLE} and what it says of a sentence encoder do not go together; build the guard again")
    if "prompt" not in record.views or not set(REPLY_VIEWS) & set(record.views):
        raise GuardError(f"{path}: must have the view prompt and one or both of {' and '.join(REPLY_VIEWS)}; build the guard again")
    if record.balanced and set(record.balanced.views) != set(record.views):
        raise GuardError(f"{path}: the balanced point must have the views {', '.join(record.views)}; build the guard again")
    for view in record.views:
        points = [record.views[view], *([record.balanced.views[view]] if record.balanced else [])]
        if strange := {name for point in points for name in point.clauses} - set(record.clauses):
            raise GuardError(f"{path}: the view {view} has a threshold for {min(strange)!r}, which has no head; build the guard again")
        if (record.views[view].head is not None) != (HEAD in record.files):
            raise GuardError(f"{path}: {HEAD} and what the view {view} says of it do not go together; build the guard again")


def _bounded(path: Path) -> bytes:
    if path.stat().st_size > 4_000_000:
        raise GuardError(f"{path}: larger than a guard.json can be; the folder is foreign or damaged")
    return path.read_bytes()


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
