"""Labelled rows to sets that can be scored: JSONL folders of public data, and the held-out split of a build.

Nothing is dropped in silence: labels and kinds that say nothing about harm are counted under `left_out`.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from charter.errors import DataError, NoData
from charter.evaluation.languages import code
from charter.records import Example, Exchange, Turn, View, parse_turns, read_jsonl

LABELS = {"harmful": True, "safe": False, "benign": False}
KINDS: dict[str, View] = {"prompt": "prompt", "injection": "prompt", "response": "exchange"}
"""The kinds that can be scored, and the view that scores them."""
NOT_DRAWN = "not drawn (limit)"


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled exchange."""

    exchange: Exchange
    positive: bool
    slice: str
    """Where it comes from: a slice of the build, or the name of a public set."""
    family: str | None = None
    """How the text was disguised; None where nobody knows."""
    clause: str | None = None
    """The restricted clause it breaks; None on harmless items and on data labelled by other rules."""
    parent: str | None = None
    """What it was made from, or the conversation it is part of; None where nobody knows."""
    language: str | None = None
    """Of its last turn, two letters; None where nobody said."""
    held_out: bool | None = None
    """Whether training saw nothing of its family; None where nobody knows."""

    @property
    def cluster(self) -> object:
        """Items with the same are not independent: those of one parent, or replies to one prompt."""
        return self.parent or self.exchange.prompt


@dataclass(frozen=True, slots=True)
class Set:
    """Items that are scored alike and reported together."""

    name: str
    kind: str
    """prompt, response or injection; anything else is named in the results and not scored."""
    items: tuple[Item, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason to the number of rows that are not scored."""

    @property
    def view(self) -> View:
        return KINDS[self.kind]


def load_folder(folder: Path) -> list[Set]:
    r"""Every *.jsonl and *.jsonl.gz of a folder; rows are {id, messages, label, category, lang, kind}, lines end at \n only.

    Raises:
        DataError: a row or file can't be read; names the file and line.
        NoData: the folder holds no such file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of labelled data")
    files = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not files:
        raise NoData(f"{folder}: holds no *.jsonl or *.jsonl.gz file, so there is nothing to evaluate on")
    sets: list[Set] = []
    for file in files:
        sets += _load(file)
    names = Counter(s.name for s in sets)
    twice = [name for name, n in names.items() if n > 1]
    if twice:
        raise DataError(f"{folder}: two files hold a set named {twice[0]!r}; rename one of them")
    return sets


def from_examples(examples: Iterable[Example], split: str = "test") -> list[Set]:
    """The sets "heldout_prompt" (rows without a reply) and "heldout_reply" (rows with one) of a build's examples.

    Raises:
        NoData: the split has no rows.
    """
    prompts: list[Item] = []
    replies: list[Item] = []
    examples = list(examples)
    taught = {e.family for e in examples if e.split == "train"}
    for e in examples:
        if e.split != split:
            continue
        harmful = e.prompt_restricted if e.reply_restricted is None else e.reply_restricted
        item = Item(e.exchange, harmful, e.slice, e.family, e.clause if harmful else None, e.parent, None, e.family not in taught)
        (prompts if e.reply_restricted is None else replies).append(item)
    if not prompts and not replies:
        raise NoData(f"the examples have no row in the split {split!r}; synthesize more of them")
    both = Set("heldout_prompt", "prompt", tuple(prompts)), Set("heldout_reply", "response", tuple(replies))
    return [s for s in both if s.items]


def sample(sets: Iterable[Set], limit: int, seed: int) -> list[Set]:
    """At most `limit` rows of each set, drawn without replacement and kept in order; the rest is counted as left out."""
    drawn = []
    for s in sets:
        if len(s.items) > limit:
            rng = random.Random(f"{seed}:{s.name}")
            kept = sorted(rng.sample(range(len(s.items)), limit))
            left_out = {**s.left_out, NOT_DRAWN: len(s.items) - limit}
            s = replace(s, items=tuple(s.items[n] for n in kept), left_out=left_out)
        drawn.append(s)
    return drawn


def within(sets: Sequence[Set], tokens: int, count: Callable[[Exchange], int], seed: int) -> list[Set]:
    """Rows of each set in an order drawn by the seed until its share of `tokens` is spent; what is not drawn is counted as left out.

    Every set has the same share, and what a small set leaves goes to the larger ones. A set keeps at least one row.

    Args:
        count: the tokens of an exchange.
    """
    lengths = [[count(item.exchange) for item in s.items] for s in sets]
    share = _level([sum(own) for own in lengths], tokens)
    drawn = []
    for s, own in zip(sets, lengths, strict=True):
        order = list(range(len(own)))
        random.Random(f"{seed}:{s.name}").shuffle(order)
        spent = list(accumulate(own[n] for n in order))
        keep = sorted(order[: max(1, sum(total <= share for total in spent))])
        lost = len(order) - len(keep)
        drawn.append(replace(s, items=tuple(s.items[n] for n in keep), left_out={**s.left_out, NOT_DRAWN: lost}) if lost > 0 else s)
    return drawn


def _level(sizes: Sequence[int], total: int) -> float:
    """The share at which sum(min(size, share)) is `total`; infinite where everything fits."""
    left = float(total)
    for done, size in enumerate(sorted(sizes)):
        if size * (len(sizes) - done) > left:
            return left / (len(sizes) - done)
        left -= size
    return float("inf")


def _load(file: Path) -> list[Set]:
    """The sets of one file: one for each kind in it, nearly always a single one."""
    name = file.name.removesuffix(".gz").removesuffix(".jsonl")
    items: dict[str, list[Item]] = {}
    left_out: dict[str, Counter[str]] = {}
    try:
        for number, row in read_jsonl(file):
            where = f"{file}:{number}"
            kind, label = _word(row, "kind", where), _word(row, "label", where)
            items.setdefault(kind, [])
            if kind not in KINDS:
                left_out.setdefault(kind, Counter())[f"kind {kind}"] += 1
            elif label not in LABELS:
                left_out.setdefault(kind, Counter())[f"label {label}"] += 1
            else:
                items[kind].append(Item(_exchange(row, KINDS[kind], where), LABELS[label], name, **_told(row)))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{file}: can't be read ({error}); copy the file again") from error
    if not items:
        raise DataError(f"{file}: holds no rows; remove it or fill it")
    several = len(items) > 1
    return [Set(f"{name}:{kind}" if several else name, kind, tuple(rows), dict(left_out.get(kind, {}))) for kind, rows in items.items()]


def _word(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: the row needs a `{key}`, a word such as {'prompt' if key == 'kind' else 'harmful'!r}")
    return value


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """What a row may say of its origin: `parent` or `conversation`, and `lang`."""
    parent = next((str(row[key]) for key in ("parent", "conversation") if row.get(key)), None)
    return {"parent": parent, "language": code(row.get("lang"))}


def _exchange(row: dict[str, Any], view: View, where: str) -> Exchange:
    """The part of a row that its label speaks of: up to the last reply, or up to the last turn before a reply."""
    turns = parse_turns(row.get("messages"), where)
    try:
        "".join(t.role + t.content for t in turns).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: a message holds half of a surrogate pair, which is no text; mend the escape in that row") from error
    end = len(turns)
    while end and (turns[end - 1].role == "assistant") != (view == "exchange"):
        end -= 1
    if not end:
        wanted = "a turn of the assistant" if view == "exchange" else "a turn that is not the assistant's"
        raise DataError(f"{where}: there is nothing to score; a row of kind {row['kind']!r} needs {wanted}")
    return Exchange(str(row.get("id", where)), tuple(Turn(t.role, t.content) for t in turns[:end]))
