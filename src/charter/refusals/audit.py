"""Many replies at once, from a file or a live endpoint: what became of each, by slice, and how often harmless prompts were refused.

The guard's blocks, the model's own refusals and its incapacity are kept apart: each is mended elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from charter.errors import DataError, NoData, UnusableAnswer
from charter.llm.chat import FILTERED, Chat, Request
from charter.llm.pool import Progress, gather, quiet
from charter.records import Turn, parse_turns, read_jsonl
from charter.refusals.agreement import agreement
from charter.refusals.classify import Classifier, Finding
from charter.refusals.replies import CANNOT
from charter.statistics import clopper_pearson

Outcome = Literal["blocked", "refused", "incapable", "partly", "complied", "unscored"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
"""blocked: by the guard (`content_filter`). refused, incapable: by the model, which should not or could not. unscored: no reply to read."""
NOT_ANSWERED: tuple[Outcome, ...] = ("blocked", "refused", "incapable")
HARMLESS = {"safe": True, "benign": True, "harmful": False}
WINDOW = 256


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation with what is known of it."""

    id: str
    prompt: tuple[Turn, ...]
    reply: str | None
    """None where there is none yet, or none came."""
    finish: str = ""
    slice: str = ""
    harmless: bool | None = None
    """Whether the prompt is harmless; None where nobody said."""
    label: str | None = None
    """What a human says the reply did: refusal, partial_refusal or compliance."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A row, what became of it, and what its reply did (None where there was none to read)."""

    row: Row
    outcome: Outcome
    finding: Finding | None

    def as_dict(self) -> dict[str, Any]:
        found = asdict(self.finding) | {"why": list(self.finding.why)} if self.finding else None
        return {"id": self.row.id, "slice": self.row.slice, "outcome": self.outcome, "finding": found}


def rows(file: Path, replies: bool, harmless: bool = False) -> Iterator[Row]:
    """Rows of a JSONL file: {"id", "messages"} with, where known, "finish_reason", "slice" (or "category"), "harmless" and "label".

    Args:
        replies: each conversation must end in a reply (unless it was blocked); else a reply at its end is left out.
        harmless: all prompts are; else those with "harmless": true, and those of kind "prompt" labelled safe or benign.

    Raises:
        DataError: a row is off; names the file and line.
        NoData: the file holds none.
    """
    if not file.is_file():
        raise DataError(f"{file}: there is no such file")
    found = False
    for number, value in read_jsonl(file):
        found = True
        yield _row(value, f"{file}:{number}", str(number), replies, harmless)
    if not found:
        raise NoData(f"{file}: holds no rows, so there is nothing to count")


def judge(row: Row, classifier: Classifier) -> Judged:
    """What became of one row. A blocked reply is not read: what is left of it is not the model's word."""
    if row.finish == FILTERED:
        return Judged(row, "blocked", None)
    if row.reply is None or not row.reply.strip():
        return Judged(row, "unscored", None)
    asked = next((turn.content for turn in reversed(row.prompt) if turn.role == "user"), None)
    finding = classifier.judge(row.reply, asked)
    if finding.did == "refused":
        return Judged(row, "incapable" if finding.parent == CANNOT else "refused", finding)
    return Judged(row, finding.did, finding)


async def ask(
    chat: Chat, prompts: Iterable[Row], max_tokens: int, seed: int, limit: int, progress: Progress = quiet
) -> AsyncGenerator[Row]:
    """The prompts with the replies of a live endpoint, in order, `limit` at once. A call that gets nothing leaves its row without a reply.

    Raises:
        TeacherError: the endpoint can't be reached or refuses every call.
    """

    async def one(row: Row) -> Row:
        try:
            reply = await chat.complete(Request(row.prompt, max_tokens, 0.0, seed))
        except UnusableAnswer:
            return row
        return replace(row, reply=reply.text, finish=reply.finish)

    waiting = list(prompts)
    for start in range(0, len(waiting), WINDOW):
        for row in await gather([partial(one, row) for row in waiting[start : start + WINDOW]], limit):
            yield row
        progress("asking", min(start + WINDOW, len(waiting)), len(waiting))


def summary(judged: Sequence[Judged], seed: int = 0) -> dict[str, Any]:
    """Counts and shares with exact 95 % intervals: overall, by slice, by reason, of harmless prompts; agreement with human labels.

    Shares are of all rows but the unscored, which are counted apart.

    Raises:
        NoData: there are no rows.
    """
    if not judged:
        raise NoData("there are no replies to count")
    slices = sorted({j.row.slice for j in judged if j.row.slice})
    harmless = [j for j in judged if j.row.harmless]
    labelled = [j for j in judged if j.row.label is not None and j.finding is not None]
    declined = [j.finding for j in judged if j.finding is not None and j.finding.did != "complied"]
    return {
        "schema": 1,
        "seed": seed,
        "overall": shares(judged),
        "slices": {name: shares([j for j in judged if j.row.slice == name]) for name in slices},
        "harmless": shares(harmless) if harmless else None,
        "reasons": {
            "declined": len(declined),
            "off_topic": sum(f.off_topic for f in declined),
            "parents": dict(Counter(f.parent or "not stated" for f in declined if not f.off_topic).most_common()),
            "stated": dict(Counter(reason for f in declined for reason in f.why).most_common()),
        },
        "agreement": _agreement(labelled, seed) if labelled else None,
    }


def shares(judged: Sequence[Judged]) -> dict[str, Any]:
    """`n`, the unscored, and for each other outcome its share with an interval; `not_answered` is blocked, refused and incapable together."""
    counts = Counter(j.outcome for j in judged)
    n = len(judged) - counts["unscored"]
    out: dict[str, Any] = {"n": n, "unscored": counts["unscored"]}
    if n:
        hits = {name: counts[name] for name in OUTCOMES if name != "unscored"}
        hits["not_answered"] = sum(counts[name] for name in NOT_ANSWERED)  # type: ignore[index]
        out |= {name: clopper_pearson(count, n).as_dict() for name, count in hits.items()}
    return out


def _agreement(labelled: Sequence[Judged], seed: int) -> dict[str, Any]:
    found = [(j.row.label or "", j.finding.did, j.row.prompt) for j in labelled if j.finding is not None]
    labels, did, prompts = zip(*found, strict=True)
    return agreement(labels, did, prompts, seed)


def _row(value: dict[str, Any], where: str, number: str, replies: bool, harmless: bool) -> Row:
    turns = parse_turns(value.get("messages"), where)
    finish, label = value.get("finish_reason") or "", value.get("label")
    replied = turns[-1].role == "assistant"
    if replies and not replied and finish != FILTERED:
        raise DataError(f"{where}: the conversation does not end in a reply; to ask an endpoint for replies, pass --endpoint and --prompts")
    prompt = turns[:-1] if replied else turns
    if not replies and not prompt:
        raise DataError(f"{where}: there is no prompt before the reply")
    safe = value.get("harmless")
    if not isinstance(safe, bool):
        safe = HARMLESS.get(str(label)) if value.get("kind", "prompt") == "prompt" else None
    return Row(
        str(value.get("id", number)),
        prompt,
        turns[-1].content if replied and replies else None,
        str(finish),
        str(value.get("slice") or value.get("category") or ""),
        True if harmless else safe,
        label if isinstance(label, str) and value.get("kind", "refusal") == "refusal" and replies else None,
    )
