"""A teacher that misbehaves: what it gives is retried, dropped and counted, never kept; what it gives well is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from kitchen import POOLS, Fault, answer

from charter.constitution import Constitution
from charter.errors import DataError, TeacherError
from charter.llm.cache import WINDOW, Cache, CachedChat
from charter.llm.client import OpenAIChat
from charter.records import read_examples
from charter.synthesis.build import Options, synthesize
from charter.synthesis.language import LanguageTeacher
from charter.synthesis.manifest import Manifest

PLAIN = {"families": ("plain",), "without_pools": POOLS}


def run(constitution: Constitution, url: str, folder: Path, attempts: int = 2, timeout_s: float = 20.0) -> tuple[Manifest, dict[str, int]]:
    chosen = Options(per_clause=10, replies_per_clause=4, limit=4, **PLAIN)

    async def go() -> Manifest:
        chat = OpenAIChat(url, "m", attempts=attempts, first_wait_s=0.001, timeout_s=timeout_s)
        try:
            with Cache(folder / "cache.sqlite") as cache:
                teacher = LanguageTeacher(CachedChat(chat, cache, chosen.budget(), chosen.limit), constitution)
                return await synthesize(constitution, teacher, chosen, folder)
        finally:
            await chat.aclose()

    return anyio.run(go), json.loads((folder / "run.json").read_text())["teacher_calls"]


def says(text: str) -> str:
    completion = answer({"messages": [{"content": "x"}]})
    completion["choices"][0]["message"]["content"] = text
    return json.dumps(completion)


def asks_for_a_prompt(body: dict[str, Any]) -> bool:
    return bool(body["messages"][-1]["content"].endswith("Request:"))


def every_third_first(fault: Fault) -> Callable[[dict[str, Any], int], Fault | None]:
    """The fault for every third question, the first time that it is asked."""
    seen: set[str] = set()

    def script(body: dict[str, Any], number: int) -> Fault | None:
        text = json.dumps(body, sort_keys=True)
        new = text not in seen
        seen.add(text)
        return fault if new and len(seen) % 3 == 0 else None

    return script


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, '{"error": {"message": "slow down"}}', (("retry-after", "0.01"),)), Fault(503, "busy"), Fault(200, '{"choices": ['),
        Fault(200, "<html>welcome</html>", (("content-type", "text/html"),)), Fault(200, ""), Fault(200, says("x"), delay_s=1.5),
    ],
    ids=["429", "503", "cut-off", "html", "empty", "timeout"],
)  # fmt: skip
def test_a_passing_fault_is_tried_again_and_leaves_no_trace_in_what_is_written(
    model_server: Any, constitution: Constitution, tmp_path: Path, fault: Fault
) -> None:
    few = every_third_first(fault)
    run(constitution, model_server.url, tmp_path / "good")
    model_server.fault = few if not fault.delay_s else lambda body, n: few(body, n) if n % 20 == 0 else None
    _, calls = run(constitution, model_server.url, tmp_path / "bad", attempts=4, timeout_s=1.0 if fault.delay_s else 20.0)
    for name in ("examples.parquet", "manifest.json"):
        assert (tmp_path / "good" / name).read_bytes() == (tmp_path / "bad" / name).read_bytes()
    assert calls["failed"] == 0
    assert calls["retried"] > 0 or fault.delay_s


@pytest.mark.parametrize(
    ("text", "why"),
    [("I'm sorry, I can't help with that.", "a refusal"), ("Where is the key of the cellar?", "an echo"), ("", "an empty answer"), ("no", "too short or too long")],
)  # fmt: skip
def test_what_is_no_request_is_dropped_and_counted_by_its_reason(
    model_server: Any, constitution: Constitution, tmp_path: Path, text: str, why: str
) -> None:
    bad = [0]

    def script(body: dict[str, Any], number: int) -> Fault | None:
        if not asks_for_a_prompt(body) or number % 2:
            return None
        bad[0] += 1
        return Fault(200, says(text))

    model_server.fault = script
    manifest, _ = run(constitution, model_server.url, tmp_path)
    written = next(stage for stage in manifest.stages if stage.name == "prompts")
    cellar = bad[0] if why != "an echo" else 1  # an echo is one for the clause that was shown this example
    assert cellar <= written.dropped[why] <= bad[0]
    assert not any(turn.content == text for row in read_examples(tmp_path) for turn in row.turns if row.teacher != "constitution")
    assert written.made == written.kept + sum(written.dropped.values())


def test_one_call_that_always_fails_is_dropped_and_the_run_goes_on(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    broken: list[str] = []

    def script(body: dict[str, Any], number: int) -> Fault | None:
        text = json.dumps(body, sort_keys=True)
        if not broken and asks_for_a_prompt(body):
            broken.append(text)
        return Fault(200, "<html>") if text in broken else None

    model_server.fault = script
    manifest, calls = run(constitution, model_server.url, tmp_path)
    assert (calls["failed"], calls["retried"]) == (1, 1)
    assert next(stage for stage in manifest.stages if stage.name == "prompts").dropped["an empty answer"] == 1
    assert sum(1 for _ in read_examples(tmp_path)) > 20


def test_an_opinion_that_never_comes_drops_its_item(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Fault | None:
        return Fault(400, '{"error": "context too long"}') if body.get("logprobs") and number % 5 == 0 else None

    model_server.fault = script
    manifest, calls = run(constitution, model_server.url, tmp_path)
    label = next(stage for stage in manifest.stages if stage.name == "label")
    assert 0 < label.dropped["no usable opinion"] <= calls["failed"]


def test_a_teacher_that_gives_hardly_anything_stops_the_run_early(model_server: Any, constitution: Constitution, tmp_path: Path) -> None:
    model_server.fault = lambda body, number: Fault(200, "<html>the network wants you to log in</html>")
    with pytest.raises(TeacherError, match=r"2\d of the last \d+ calls got nothing usable.*log in.*run again") as caught:
        run(constitution, model_server.url, tmp_path, attempts=1)
    assert "\n" not in str(caught.value)
    assert model_server.calls <= WINDOW
    assert not (tmp_path / "examples.parquet").exists()


@pytest.mark.parametrize("status", [401, 404, 429])
def test_what_every_call_would_get_stops_the_run_at_once(
    model_server: Any, constitution: Constitution, tmp_path: Path, status: int
) -> None:
    model_server.fault = lambda body, number: Fault(status, "{}", (("retry-after", "0"),))
    with pytest.raises(TeacherError, match=f"answers {status}"):
        run(constitution, model_server.url, tmp_path)
    assert model_server.calls <= 3 * 2


NO = "I'm sorry, I can't help with that."


def test_a_teacher_that_refuses_every_prompt_of_a_clause_is_told_by_its_name(
    model_server: Any, constitution: Constitution, tmp_path: Path
) -> None:
    def script(body: dict[str, Any], number: int) -> Fault | None:
        return Fault(200, says(NO)) if asks_for_a_prompt(body) and "Opening the wine cellar" in json.dumps(body) else None

    model_server.fault = script
    manifest, _ = run(constitution, model_server.url, tmp_path)
    assert manifest.unserved == ["cellar"]
    assert "1 of 3 clauses, which have only their own examples: cellar;" in manifest.warning
    assert {row.teacher for row in read_examples(tmp_path) if row.clause == "cellar" and row.reply_restricted is None} == {"constitution"}


def test_a_teacher_that_refuses_everything_is_an_error_and_nothing_is_written(
    model_server: Any, constitution: Constitution, tmp_path: Path
) -> None:
    model_server.fault = lambda body, number: Fault(200, says(NO)) if asks_for_a_prompt(body) else None
    with pytest.raises(DataError, match=r"nothing usable for any clause \(\d+ a refusal\).*another --teacher"):
        run(constitution, model_server.url, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith("cache.sqlite")] == []
