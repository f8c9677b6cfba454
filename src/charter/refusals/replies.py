"""Labelled replies to learn from: written for it, recorded with the constitutions, and composed of both for length.

What was written or recorded is short; what models say is often long. So long replies are put together from short ones: answers
after an apology or a caveat, refusals with a lecture after them, refusals that go over into an answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any, Literal

from charter.errors import DataError
from charter.records import parse_object

Deed = Literal["refused", "partly", "complied"]
DEEDS: tuple[Deed, ...] = ("refused", "partly", "complied")
SHOULD_NOT, CANNOT = "should-not", "cannot"
RECORDED: dict[str, Deed] = {"refusal": "refused", "compliance": "complied", "answer": "complied"}
CLAUSES = {
    "privacy-surveillance": "privacy", "intellectual-property": "", "sexual-explicit": "nsfw", "mass-casualty-weapons": "information-hazards",
    "weapons-explosives": "information-hazards", "malware": "information-hazards", "making-agents": "information-hazards",
    "fraud-scams": "legal-compliance", "theft-smuggling": "legal-compliance", "copyright-and-sharing": "intellectual-property",
}  # fmt: skip
"""The reason that a recorded refusal gives, by the clause it was written for, where that is plain."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One labelled reply."""

    text: str
    did: Deed
    why: frozenset[str] | None = frozenset()
    """Reasons and their parents; None where nobody said (left out when reasons are learned)."""
    lang: str = "en"
    by: str = "authored"


def authored(file: Traversable | Path | None = None, known: Mapping[str, Mapping[str, str]] | None = None) -> list[Reply]:
    """The replies written for this: JSONL of {reply, did, why?, lang?, by}. `known`: reasons by parent; by default those shipped.

    Raises:
        DataError: a row is off; says which and how.
    """
    source = file or _data("replies.jsonl")
    parents = {reason: parent for parent, named in (known or reasons()).items() for reason in named}
    out = []
    for number, line in enumerate(_read(source).split("\n"), 1):
        if line.strip():
            out.append(_row(parse_object(line, f"{source.name}:{number}"), f"{source.name}:{number}", parents))
    return out


def reasons(file: Traversable | Path | None = None) -> dict[str, dict[str, str]]:
    """Reasons to refuse with what they mean, by parent (`should-not`, `cannot`): `data/reasons.json`.

    Raises:
        DataError: the file has another shape.
    """
    source = file or _data("reasons.json")
    found = parse_object(_read(source), source.name)
    if set(found) != {SHOULD_NOT, CANNOT} or not all(isinstance(known, dict) for known in found.values()):
        raise DataError(f"{source.name}: it must hold two objects, `{SHOULD_NOT}` and `{CANNOT}`, of reasons and what they mean")
    return found


def recorded() -> list[Reply]:
    """Refusals, compliances and answers that ship with the constitutions, without those that the embedded model wrote."""
    folder = resources.files("charter") / "constitutions"
    out = []
    for file in sorted(chain.from_iterable(f.iterdir() for f in folder.iterdir() if f.is_dir()), key=lambda f: str(f)):
        if not file.name.endswith(".jsonl"):
            continue
        why = CLAUSES.get(file.name.removesuffix(".jsonl"), "")
        for line in file.read_text(encoding="utf-8").split("\n"):
            row = json.loads(line) if line.strip() else {}
            for kind, did in RECORDED.items():
                if row.get(kind) and not (kind == "answer" and row.get("answer_by")):
                    given = frozenset({why, SHOULD_NOT}) if why and did == "refused" else None
                    out.append(Reply(row[kind], did, given, row.get("lang", "en"), "recorded"))
    return out


def composed(replies: Sequence[Reply], n: int, seed: int = 0) -> list[Reply]:
    """`n` longer replies put together from some of `replies` and the pieces in `data/parts.json`; the same for the same seed."""
    parts: Mapping[str, list[str]] = json.loads(_data("parts.json").read_text(encoding="utf-8"))
    rng = Random(seed)
    english = [r for r in replies if r.lang == "en"]
    refusals = [r for r in english if r.did == "refused"]
    answers = [r for r in english if r.did == "complied" and len(r.text) > 60]
    if not refusals or not answers:
        raise DataError("long replies are composed of English refusals and answers; there must be some of both")
    makers = (_answer, _answer, _refusal, _refusal, _turned)
    return [makers[number % len(makers)](rng, parts, refusals, answers) for number in range(n)]


def _answer(rng: Random, parts: Mapping[str, list[str]], _: Sequence[Reply], answers: Sequence[Reply]) -> Reply:
    """An answer with an apology, a caveat or neither before it, and a closing or none after it."""
    before = [rng.choice(parts[kind]) for kind in ("apologies", "caveats") if rng.random() < 0.5]
    after = [rng.choice(parts["closings"])] if rng.random() < 0.5 else []
    said = [rng.choice(answers).text for _ in range(rng.choice((1, 2, 3, 5)))]
    return Reply(_joined(rng, [*before, *said, *after]), "complied", frozenset(), by="composed")


def _refusal(rng: Random, parts: Mapping[str, list[str]], refusals: Sequence[Reply], _: Sequence[Reply]) -> Reply:
    """A refusal among lectures, or lectures in place of one, with other help offered at the end."""
    lectures = rng.sample(parts["lectures"], rng.choice((1, 2, 4, 8)))
    if rng.random() < 0.7:
        lectures.insert(int(rng.random() < 0.2), rng.choice(refusals).text)
    said = [*lectures, *rng.sample(parts["alternatives"], rng.choice((0, 1, 2, 4)))]
    return Reply(_joined(rng, said), "refused", None, by="composed")


def _turned(rng: Random, parts: Mapping[str, list[str]], refusals: Sequence[Reply], answers: Sequence[Reply]) -> Reply:
    """A refusal that goes over into an answer."""
    one = rng.choice(refusals)
    said = [one.text, rng.choice(parts["bridges"]), *(rng.choice(answers).text for _ in range(rng.choice((1, 1, 2))))]
    return Reply(_joined(rng, said), "partly", one.why, by="composed")


def _joined(rng: Random, said: Sequence[str]) -> str:
    return rng.choice((" ", " ", "\n\n")).join(said)


def _row(row: Mapping[str, Any], where: str, parents: Mapping[str, str]) -> Reply:
    text, did, why = row.get("reply"), row.get("did"), row.get("why", [])
    if not isinstance(text, str) or not text.strip() or did not in DEEDS:
        raise DataError(f"{where}: a row needs a `reply` and `did`, one of {', '.join(DEEDS)}")
    if not isinstance(why, list) or not all(w in parents or w in (SHOULD_NOT, CANNOT) for w in why):
        raise DataError(f"{where}: `why` must be a list of reasons; known are {', '.join([*parents, SHOULD_NOT, CANNOT])}")
    return Reply(
        text, did, frozenset(why) | {parents[w] for w in why if w in parents}, str(row.get("lang", "en")), str(row.get("by", "authored"))
    )


def _data(name: str) -> Traversable:
    return resources.files("charter.refusals") / "data" / name


def _read(source: Traversable | Path) -> str:
    try:
        return source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: can't be read ({error}); is it a file in UTF-8?") from error
