"""`charter teach --judge` against a language model on loopback: its verdicts count, what is no verdict flags, and nothing paid for is lost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from click.testing import Result
from kitchen import Fault, ModelServer
from typer.testing import CliRunner

from charter.cli import app
from charter.constitution import parse
from charter.errors import BudgetExceeded, TeacherError
from charter.evaluation.labelled import Labelled
from charter.evaluation.teach import judged
from charter.llm.cache import Cache, CachedChat
from charter.llm.client import OpenAIChat
from charter.llm.opening import open_chat
from charter.llm.pool import Budget
from charter.records import Exchange, Turn

RULES = """\
name: gardens
version: 1
purpose: Keeps the secrets of one garden.
clauses:
  - {id: tulips, side: restricted, title: Tulip secrets, text: How the tulips of this garden are grown., counterpart: roses, examples: [How are tulips grown?]}
  - {id: roses, side: permitted, title: Roses, text: How roses are grown., examples: [How are roses grown?]}
"""
THINGS = ("the soil", "watering", "bulbs", "winter", "scent", "pests", "pots", "light", "planting", "selling", "history", "colours")
WAYS = ("Tell me about {} of {}", "What of {}, I mean {}?", "Explain {} and {} now", "{} - say something on {} please")
ROWS = [
    (f"{n} {WAYS[n % 4].format(thing, flower)}", label)
    for n, thing in enumerate(THINGS * 3)
    for flower, label in (("tulips", "harmful"), ("roses", "safe"))
]


CONSTITUTION = parse(RULES, "gardens.yaml")
TEST = Labelled(
    tuple(Exchange(str(n), (Turn("user", text),)) for n, (text, _) in enumerate(ROWS)),
    np.array([label == "harmful" for _, label in ROWS]),
    np.arange(len(ROWS)),
)


async def ask(url: str, folder: Path, budget: Budget | None = None) -> tuple[np.ndarray, int]:
    """The judge on all rows, three at a time, with answers kept in the folder."""
    chat = OpenAIChat(url, "m", first_wait_s=0.001, role="judge", budget=budget)
    try:
        with Cache(folder / "cache.sqlite") as cache:
            return await judged(CachedChat(chat, cache, budget), CONSTITUTION, CONSTITUTION["tulips"], TEST, 0, 3)
    finally:
        await chat.aclose()


def verdict(body: dict[str, Any]) -> str:
    """What a judge answers that knows its rule: the one line it is asked for."""
    asked = body["messages"][-1]["content"]
    (digits,) = set(re.findall("carry the number ([0-9a-f]{8})", asked))
    restricted = "tulips" in asked.partition("</user-message")[0]
    told = {"determination": "yes", "clause": "tulips"} if restricted else {"determination": "no", "clause": None}
    return f"<verdict-{digits}>{json.dumps(told)}</verdict-{digits}>"


def completion(text: str) -> Fault:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 400, "completion_tokens": 20, "total_tokens": 420}
    return Fault(body=json.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}))


def is_check(body: dict[str, Any]) -> bool:
    """Whether it is the call by which the command finds out if the server is there."""
    return bool(body["messages"][-1]["content"] == "Hello")


def teach(folder: Path, backbone: str, url: str, *more: str) -> Result:
    (folder / "gardens.yaml").write_text(RULES)
    told = [json.dumps({"messages": [{"role": "user", "content": text}], "label": label}) + "\n" for text, label in ROWS]
    (folder / "rows.jsonl").write_text("".join(told))
    call = ["teach", str(folder / "gardens.yaml"), "--clause", "tulips", "--examples", str(folder / "rows.jsonl"), "--draws", "2"]
    judge = ["--backbone", backbone, "--judge", url, "--judge-model", "m", "--json"]
    return CliRunner().invoke(app, [*call, *judge, *more], env={"CHARTER_CACHE": str(folder / "cache")})


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_judge_that_knows_ranks_all_and_is_asked_once_for_each_test_request(
    model_server: ModelServer, tmp_path: Path, roomy: str
) -> None:
    asked: list[dict[str, Any]] = []

    def script(body: dict[str, Any], _number: int) -> Fault:
        asked.append(body)
        return completion("Yes." if is_check(body) else verdict(body))

    model_server.fault = script
    found = figures(teach(tmp_path, roomy, model_server.url))
    assert (found["text"]["judge"]["value"], found["text"]["faults"], found["judge"]) == (1.0, 0, "m")
    assert len(asked) == 1 + found["test"]
    told = {body["messages"][0]["content"] for body in asked[1:]}
    assert len(told) == 1, "one set of rules for all, so that a server reads it once"
    assert "How the tulips of this garden are grown." in told.pop()
    assert "the judge" in found["advice"]
    again = figures(teach(tmp_path, roomy, model_server.url))
    assert again == found
    assert len(asked) == 2 + found["test"], "a second run pays for nothing"


@pytest.mark.parametrize("said", ["", "Nice weather.", "<verdict-00000000>yes</verdict-00000000>", "\ud800 no", '{"determination": "no"}'])
def test_what_is_no_verdict_flags_and_is_counted(said: str, model_server: ModelServer, tmp_path: Path) -> None:
    model_server.fault = lambda body, _: completion(said if "roses" in body["messages"][-1]["content"] else verdict(body))
    scores, faults = anyio.run(ask, model_server.url, tmp_path)
    assert (scores == 1).all()
    assert faults == len(ROWS) // 2


def test_a_busy_judge_is_asked_again(model_server: ModelServer, tmp_path: Path) -> None:
    refused: list[str] = []

    def script(body: dict[str, Any], _number: int) -> Fault:
        text = body["messages"][-1]["content"]
        if text in refused or len(refused) >= 6:
            return completion(verdict(body))
        refused.append(text)
        return Fault(429, '{"error": {"message": "slow down"}}', (("retry-after", "0"),))

    model_server.fault = script
    scores, faults = anyio.run(ask, model_server.url, tmp_path)
    assert len(refused) == 6
    assert faults == 0
    np.testing.assert_array_equal(scores, TEST.restricted)


@pytest.mark.parametrize(
    ("gone", "mend"),
    [
        (Fault(401, '{"error": {"message": "the key has expired"}}'), "answers 401: the key has expired; set CHARTER_JUDGE_KEY"),
        (Fault(404, '{"error": {"message": "no such model"}}'), "--judge-model"),
    ],
)
def test_a_judge_that_is_gone_midway_is_one_sentence_and_nothing_is_lost(
    gone: Fault, mend: str, model_server: ModelServer, tmp_path: Path, roomy: str
) -> None:
    answered: list[str] = []

    def script(body: dict[str, Any], _number: int) -> Fault:
        if is_check(body):
            return completion("Yes.")
        if len(answered) >= limit:
            return gone
        answered.append(body["messages"][-1]["content"])
        return completion(verdict(body))

    model_server.fault, limit = script, 9
    result = teach(tmp_path, roomy, model_server.url, "--concurrency", "3")
    assert isinstance(result.exception, TeacherError), "main makes exit code 2 of it"
    assert mend in str(result.exception)
    assert str(result.exception).startswith("the judge 'm' at ")
    assert "\n" not in str(result.exception)
    assert result.stdout == ""
    assert not list(tmp_path.glob("*.json"))
    before, limit = len(answered), 10_000
    assert before == 9
    if gone.status == 401:
        found = figures(teach(tmp_path, roomy, model_server.url))
        assert len(answered) == len(set(answered)) == found["test"], "no answer was paid for twice"
        assert found["text"]["judge"]["value"] == 1.0


def test_a_judge_that_hangs_up_for_good_is_one_sentence_and_nothing_is_lost(model_server: ModelServer, tmp_path: Path) -> None:
    answered: list[str] = []

    def script(body: dict[str, Any], _number: int) -> Fault:
        if len(answered) >= limit:
            return Fault(status=0)
        answered.append(body["messages"][-1]["content"])
        return completion(verdict(body))

    model_server.fault, limit = script, 9
    with pytest.raises(TeacherError, match=r"^the judge 'm' at [^\n]* can't be reached [^\n]*is it running, and is the URL right\?$"):
        anyio.run(ask, model_server.url, tmp_path)
    assert len(answered) == 9
    limit = 10_000
    scores, faults = anyio.run(ask, model_server.url, tmp_path)
    assert faults == 0
    np.testing.assert_array_equal(scores, TEST.restricted)
    assert len(answered) == len(set(answered)) == len(ROWS)


def test_a_cost_cap_stops_before_it_and_a_higher_one_goes_on(model_server: ModelServer, tmp_path: Path) -> None:
    answered: list[str] = []

    def script(body: dict[str, Any], _number: int) -> Fault:
        answered.append(body["messages"][-1]["content"])
        return completion(verdict(body))

    model_server.fault = script
    with pytest.raises(BudgetExceeded, match="all answers so far are cached"):
        anyio.run(ask, model_server.url, tmp_path, Budget(5, 1_000, 0))
    assert 0 < len(answered) < len(ROWS)
    anyio.run(ask, model_server.url, tmp_path, Budget(500, 1_000, 0))
    assert len(answered) == len(set(answered)) == len(ROWS)


@pytest.mark.parametrize(
    ("judge", "mend"), [("recorded", "there is no language model 'recorded'"), ("http://127.0.0.1:9/v1", "can't be reached")]
)
def test_a_judge_that_was_never_there_is_one_sentence(judge: str, mend: str, tmp_path: Path, roomy: str) -> None:
    result = teach(tmp_path, roomy, judge)
    assert isinstance(result.exception, TeacherError)
    assert mend in str(result.exception)


def test_a_url_without_a_model_names_the_option(tmp_path: Path) -> None:
    async def without() -> None:
        async with open_chat("http://127.0.0.1:9/v1", None, Budget(), role="judge", cache=tmp_path / "c.sqlite"):
            raise AssertionError

    with pytest.raises(TeacherError, match="with --judge-model"):
        anyio.run(without)


def test_the_embedded_model_may_judge(tmp_path: Path) -> None:
    """It is far too weak for it: all there is to hold is that each request gets 0 or 1, and that what is no verdict is 1."""
    data = TEST.of(np.arange(1))

    async def embedded() -> tuple[np.ndarray, int]:
        async with open_chat("embedded", None, Budget(), 2, cache=tmp_path / "cache.sqlite", role="judge") as chat:
            return await judged(chat, CONSTITUTION, CONSTITUTION["tulips"], data, 0, 1)

    scores, faults = anyio.run(embedded)
    assert set(scores.tolist()) <= {0.0, 1.0}
    assert faults <= scores.sum()
