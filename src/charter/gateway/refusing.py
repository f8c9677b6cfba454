"""The upstream that begins each reply by refusal tokens: a model with them answers in this process, and a rule decides by their probability.

The model is the upstream's own: the guard judges what it says by a pass of its own, as that of any other upstream. So the rule moves what the model
refuses, and the guarantee stays what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync

from charter.errors import BackboneError, GuardError
from charter.gateway.choices import turns_of
from charter.gateway.errors import bad_request
from charter.gateway.in_process import Asked, InProcess, Reply
from charter.gateway.settings import Settings
from charter.guard.holdback import OpenGuard
from charter.records import Turn

if TYPE_CHECKING:
    from charter.models.marked import Marked
    from charter.models.refusal_tokens import Rule


@dataclass(frozen=True, slots=True)
class Dial:
    """A model with refusal tokens, and from which probability on it refuses."""

    model: Marked
    rule: Rule
    counts: Counter[str] = field(default_factory=Counter)
    """Replies by the token that they begin with. Changed on the event loop only."""


def open_dial(folder: Path, thresholds: Sequence[str], name: str = "embedded") -> Dial:
    """Load refusal tokens into the model that answers. The folder may be a stranger's: what it says of where the model lies is not followed.

    Args:
        thresholds: as `parse_rule` reads them; the model's own choice where there is none.
        name: the model: "embedded", a folder or a hub id.

    Raises:
        GuardError: the folder is missing, damaged or foreign, or what it holds breaks the model.
        BackboneError: the tokens were trained on another model.
        DataError: a threshold is none, or names a clause that has no token.
    """
    from charter.models.marked import Marked
    from charter.models.refusal_tokens import RefusalTokens, parse_rule

    rule, tokens = parse_rule(thresholds), RefusalTokens.load(folder)
    rule.check(tokens.record.marks)
    model = Marked(tokens, name)
    p = model.read((Turn("user", "Hello."),))
    if not 0 <= float(p.sum()) <= 1 + 1e-6:
        raise GuardError(f"{folder}: with these refusal tokens the model gives no probabilities; train them again")
    return Dial(model, rule)


class Refusing(InProcess):
    """Answers as `InProcess` does, by the dial's model."""

    def __init__(self, settings: Settings, dial: Dial) -> None:
        super().__init__(settings)
        self._dial = dial

    async def reply(self, request: dict[str, Any], asked: Asked, session: OpenGuard | None) -> Reply:
        """What the model will say, begun by the rule; its first event, or the whole, tells the token.

        Raises:
            HTTPProblem: 400 where the conversation is none for this model.
        """
        model = self._dial.model
        try:
            generation = await run_sync(model.start, turns_of(request), self._dial.rule)
        except BackboneError as error:
            raise bad_request(str(error)) from error
        mark = model.marks[generation.mark]
        self._dial.counts[mark] += 1
        pieces = (token.text for token in generation.tokens(asked.sampling) if token.text)
        return Reply(generation, pieces, asked, {"refusal_token": mark})
