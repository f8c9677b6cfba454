"""The gateway whose upstream begins its replies by refusal tokens: a threshold moves the token, and the guard stays where it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from openai import BadRequestError, OpenAI
from tests.gateway.conftest import Oracle, serving

from charter.errors import BackboneError, CharterError, DataError, GuardError
from charter.gateway.app import create_app
from charter.gateway.refusing import open_dial
from charter.gateway.settings import IN_PROCESS, Settings
from charter.models.generation import Generator, Sampling
from charter.models.marked import Marked
from charter.models.refusal_tokens import ROWS, RefusalTokens, Rule, TokensRecord, parse_rule
from charter.records import Turn

MARKS = ("respond", "refuse:locks", "refuse:potions")
TURNS = (Turn("user", "Is the door open?"),)
ASK: dict[str, Any] = {
    "model": "m", "messages": [{"role": "user", "content": "Is the door open?"}], "max_tokens": 12, "temperature": 1.0, "seed": 5
}  # fmt: skip
Served = tuple[OpenAI, Callable[[str], str]]


@pytest.fixture(scope="module")
def tokens(chat_folder: Path) -> RefusalTokens:
    """Rows that were drawn, not trained; the record names a place where there is no model."""
    fingerprint = Generator(str(chat_folder)).fingerprint
    record = TokensRecord(backbone="/nowhere", fingerprint=fingerprint, marks=MARKS, rows=dict.fromkeys(MARKS, 1), steps=1, seed=0)
    rows = torch.randn(3, 16, generator=torch.Generator().manual_seed(4))
    return RefusalTokens(record, {ROWS: rows})


@pytest.fixture(scope="module")
def folder(tokens: RefusalTokens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens")
    tokens.save(path)
    return path


@pytest.fixture(scope="module")
def model(tokens: RefusalTokens, chat_folder: Path) -> Marked:
    return Marked(tokens, str(chat_folder))


@pytest.fixture(scope="module")
def serve(folder: Path, chat_folder: Path) -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def get(*thresholds: str, guard: Any = None) -> Served:
            dial = open_dial(folder, thresholds, str(chat_folder))
            url = stack.enter_context(serving(create_app(guard or Oracle(), Settings(IN_PROCESS), dial=dial)))
            client = stack.enter_context(OpenAI(base_url=url + "/v1", api_key="x", max_retries=0))
            return client, lambda path: httpx2.get(url + path, trust_env=False).text

        yield get


def _streamed(client: OpenAI) -> tuple[str, list[str]]:
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    told = [c.model_extra["refusal_token"] for c in chunks if c.model_extra and "refusal_token" in c.model_extra]
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), told


def _counted(metrics: str) -> dict[str, float]:
    found = re.findall(r'^charter_refusal_tokens_total\{token="([^"]+)"\} (\S+)$', metrics, re.MULTILINE)
    return {mark: float(n) for mark, n in found}


def test_a_threshold_decides_the_token_and_the_reply_is_the_models_after_it(serve: Callable[..., Served], model: Marked) -> None:
    p = model.read(TURNS)
    at, best = float(p[1:].sum()), MARKS[1 + int(p[2] > p[1])]
    clause = best.removeprefix("refuse:")
    for thresholds, rule, mark in (
        ([str(at * 0.999)], Rule(at * 0.999), best),
        ([str(at * 1.001)], Rule(at * 1.001), "respond"),
        (["2", f"{clause}=0"], Rule(2, {clause: 0.0}), best),
    ):
        client, get = serve(*thresholds)
        whole = client.chat.completions.create(**ASK)
        expected = model.generate(TURNS, rule, Sampling(12, temperature=1.0, seed=5)).text
        assert whole.model_extra is not None
        assert (whole.choices[0].message.content, whole.model_extra["refusal_token"]) == (expected, mark)
        assert _streamed(client) == (expected, [mark])
        assert _counted(get("/metrics")) == {mark: 2}
        assert not any(mark in (whole.choices[0].message.content or "") for mark in MARKS)


class Parrot(Oracle):
    """Lets nothing pass that the prompt did not say."""

    def restricted(self, segment: str) -> bool:
        return segment not in TURNS[0].content


def test_the_guard_judges_such_a_reply_like_any_other(serve: Callable[..., Served], model: Marked) -> None:
    said = model.generate(TURNS, Rule(0), Sampling(12, temperature=1.0, seed=5)).text
    assert said not in TURNS[0].content
    client, get = serve("0", guard=Parrot())
    assert client.chat.completions.create(**ASK).choices[0].finish_reason == "content_filter"
    assert said not in _streamed(client)[0]
    assert sum(_counted(get("/metrics")).values()) == 2
    counters = json.loads(get("/healthz"))["counters"]
    assert (counters["blocked_replies"], counters["released_unscored_chars"], counters["released_after_verdict_chars"]) == (2, 0, 0)
    other = {**ASK, "messages": [{"role": "user", "content": "What is this?"}]}
    assert client.chat.completions.create(**other).choices[0].finish_reason == "content_filter"
    assert sum(_counted(get("/metrics")).values()) == 2  # nothing is begun for a blocked prompt


def test_what_the_model_can_not_follow_is_refused_in_a_sentence(serve: Callable[..., Served]) -> None:
    client, get = serve()
    for bad, words in (
        ({"messages": [{"role": "judge", "content": "x"}]}, "no role"), ({"n": 2}, "leave `n` out"),
        ({"messages": [{"role": "user", "content": "door " * 600}]}, "longer than the model's context"),
    ):  # fmt: skip
        with pytest.raises(BadRequestError, match=words):
            client.chat.completions.create(**{**ASK, **bad})
    assert _counted(get("/metrics")) == {}


def test_thresholds_are_read_as_they_are_written() -> None:
    assert parse_rule(()) == Rule()
    assert parse_rule(("0.5", "locks=0.1", "0.2")) == Rule(0.2, {"locks": 0.1})
    for bad in ("", "a", "locks=", "locks=a", "-1", "nan", "locks=inf"):
        with pytest.raises(DataError, match="threshold"):
            parse_rule((bad,))


def test_a_folder_that_does_not_fit_is_refused_in_a_sentence(
    tokens: RefusalTokens, folder: Path, chat_folder: Path, tmp_path: Path
) -> None:
    def refused(error: type[CharterError], match: str, where: Path, *thresholds: str) -> None:
        with pytest.raises(error, match=match):
            open_dial(where, thresholds, str(chat_folder))

    refused(GuardError, "no such file", tmp_path)
    refused(DataError, "there are locks, potions", folder, "doors=0.5")
    other = tokens.record.model_copy(update={"fingerprint": "0" * 16})
    RefusalTokens(other, tokens.tensors).save(tmp_path)
    refused(BackboneError, "not the model that the refusal tokens were trained on", tmp_path)
    RefusalTokens(tokens.record, {ROWS: torch.full((3, 16), 3e38)}).save(tmp_path)
    refused(GuardError, "no probabilities", tmp_path)
    name = "layers.0.self_attn.q_proj"
    huge = {f"{name}.a": torch.full((1, 16), 3e38), f"{name}.b": torch.full((16, 1), 3e38)}
    RefusalTokens(tokens.record, {**tokens.tensors, **huge}).save(tmp_path)
    refused(GuardError, "not finite", tmp_path)
