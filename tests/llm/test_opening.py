"""A name becomes a chat that is reachable, cached and closed again, or a sentence that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.errors import TeacherError
from charter.llm.chat import Request
from charter.llm.opening import open_chat
from charter.llm.pool import Budget
from charter.records import Turn

ASKED = Request((Turn("user", "How do locks work?"),), 8, 0.0, 0)


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


def test_a_url_is_tried_once_and_what_it_answers_is_kept_between_runs(stub: Any, tmp_path: Path) -> None:
    stub.script = lambda body, n: (200, {}, completion("By pins."))

    async def ask() -> str:
        async with open_chat(stub.url, "m", Budget(), cache=tmp_path / "c.sqlite") as chat:
            return (await chat.complete(ASKED)).text

    assert [anyio.run(ask), anyio.run(ask)] == ["By pins.", "By pins."]
    assert [body["messages"][-1]["content"] for body in stub.bodies] == ["Hello", "How do locks work?", "Hello"]


@pytest.mark.parametrize(
    ("teacher", "model", "mend"),
    [
        ("recorded", "m", "there is no language model 'recorded'; it is `embedded`, or a URL"),
        ("http://127.0.0.1:9/v1", None, "name the model behind http://127.0.0.1:9/v1 with --teacher-model"),
        ("http://127.0.0.1:9/v1", "m", "127.0.0.1:9"),
    ],
)
def test_what_is_no_model_or_can_not_be_reached_is_told_before_any_work(teacher: str, model: str | None, mend: str, tmp_path: Path) -> None:
    async def ask() -> None:
        async with open_chat(teacher, model, Budget(), cache=tmp_path / "c.sqlite"):
            raise AssertionError("it was opened")

    with pytest.raises(TeacherError) as caught:
        anyio.run(ask)
    assert mend in str(caught.value)
    assert not (tmp_path / "c.sqlite").exists()
