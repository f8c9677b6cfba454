"""Refusal tokens on a tiny random model: rows, training, the first token of a reply, and a sweep that equals running every threshold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from charter.errors import BackboneError, DataError, GuardError, NoData
from charter.models.generation import Generator, Sampling
from charter.models.marked import Marked
from charter.models.refusal_tokens import ROWS, RefusalTokens, Rule
from charter.records import Example, Turn, write_examples
from charter.refusals.classify import load
from charter.refusals.tokens import Answered, Asked, Row, answer, prompts, sweep, training_rows
from charter.refusals.tune import Options, _Trainer, train

THEMES = {"locks": "the door", "potions": "a love potion"}


def _example(n: int, clause: str, reply: str | None, split: str = "train", harmful: bool | None = False) -> Example:
    restricted = clause in THEMES
    asked = Turn("user", f"open {THEMES[clause]} of house {n}" if restricted else f"how old is the lock {n}")
    turns = (asked, Turn("assistant", reply)) if reply else (asked,)
    side = "restricted" if restricted else "permitted"
    return Example(
        f"{clause}-{n}-{reply}", turns, restricted, harmful if reply else None, clause, side, side, "plain", f"{clause}-{n}", "t", 0, split, "h"  # type: ignore[arg-type]
    )  # fmt: skip


def _examples() -> list[Example]:
    found = []
    for split, numbers in (("train", range(24)), ("test", range(24, 34))):
        for clause in (*THEMES, "locksmiths"):
            for n in numbers:
                said = "No." if clause in THEMES else "Old."
                found.append(_example(n, clause, said, split))
                if clause in THEMES:
                    found.append(_example(n, clause, "Sure.", split, harmful=True))
    return found


@pytest.fixture(scope="module")
def trained(chat_folder: Path) -> RefusalTokens:
    marks, rows = training_rows(_examples(), True, None, 0)
    return train(rows, marks, Options(str(chat_folder), blocks=0, epochs=6, lr=2e-2))


@pytest.fixture(scope="module")
def model(trained: RefusalTokens, chat_folder: Path) -> Marked:
    return Marked(trained, str(chat_folder))


def _turns(text: str = "open the door of house 3") -> tuple[Turn, ...]:
    return (Turn("user", text),)


def test_rows_are_refusals_and_answers_of_the_train_split_alone() -> None:
    marks, rows = training_rows(_examples(), True, None, 0)
    assert marks == ("respond", "refuse:locks", "refuse:potions")
    called = [row for row in rows if row.chosen]
    assert {(row.reply, row.mark) for row in called} == {("No.", 1), ("No.", 2), ("Old.", 0)}
    assert len(called) == 72
    assert not {row.parent for row in rows} & {e.parent for e in _examples() if e.split == "test"}
    marks, few = training_rows(_examples(), False, 20, 0)
    assert marks == ("respond", "refuse")
    assert [sum(row.mark == mark and row.chosen for row in few) for mark in (0, 1)] == [10, 10]
    assert few == training_rows(_examples(), False, 20, 0)[1] != training_rows(_examples(), False, 20, 1)[1]


def test_every_permitted_prompt_is_shown_refused_too_by_a_mark_that_is_not_learned() -> None:
    rows = training_rows(_examples(), True, None, 0)[1]
    shown = [row for row in rows if not row.chosen]
    assert {row.prompt for row in shown} == {row.prompt for row in rows if row.mark == 0}
    assert {row.mark for row in shown} == {1, 2}
    assert all(load().judge(row.reply).did == "refused" for row in shown)


def test_a_clause_with_few_refusals_gets_no_mark_and_one_side_alone_is_no_data() -> None:
    few = [e for e in _examples() if e.clause != "potions" or int(e.parent.split("-")[1]) < 7]
    assert training_rows(few, True, None, 0)[0] == ("respond", "refuse:locks")
    for side in (True, False):
        with pytest.raises(NoData, match="charter synthesize"):
            training_rows([e for e in _examples() if e.prompt_restricted is side], False, None, 0)
        with pytest.raises(NoData, match="sweep needs both"):
            prompts([e for e in _examples() if e.prompt_restricted is side], "test", None, 0)


def test_a_prompt_is_asked_once_whatever_was_made_of_it() -> None:
    asked = prompts(_examples(), "test", None, 0)
    assert len(asked) == len({a.prompt for a in asked}) == 30
    assert [a.restricted for a in prompts(_examples(), "test", 4, 0)] == [True] * 4 + [False] * 4


def test_the_token_tells_the_sides_and_the_clauses_apart(model: Marked) -> None:
    right = 0
    for asked in (every := prompts(_examples(), "test", None, 0)):
        best = int(np.argmax(model.read(asked.prompt)))
        right += model.marks[best] == (f"refuse:{asked.clause}" if asked.restricted else "respond")
    assert right >= 0.9 * len(every)


def test_p_is_that_of_a_plain_forward_over_the_vocabulary_and_the_marks(model: Marked, trained: RefusalTokens) -> None:
    ids = model.prompt(_turns())
    with torch.no_grad():
        states = model.body(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        words = states @ model._model.get_output_embeddings().weight[: model.vocabulary].T
        p = torch.cat([words, states @ trained.tensors[ROWS].T]).double().softmax(-1)[-3:]
    np.testing.assert_allclose(model.read(_turns()), p.numpy(), rtol=1e-4, atol=1e-7)


def test_a_threshold_moves_the_token_and_the_reply_begins_with_it(model: Marked) -> None:
    p = model.read(_turns())
    at = float(p[1:].sum())
    refusing = model.generate(_turns(), Rule(at * 0.999), Sampling(12, temperature=0))
    answering = model.generate(_turns(), Rule(min(at * 1.001, 1.5)), Sampling(12, temperature=0))
    assert (refusing.refused, answering.refused) == (True, False)
    assert refusing.clause == model.marks[1 + int(np.argmax(p[1:]))].removeprefix("refuse:")
    assert answering.clause == ""
    assert refusing.p_refuse == answering.p_refuse == at
    generation = model.start(_turns(), Rule(0))
    tokens = list(generation.tokens(Sampling(30, temperature=1.5, top_p=1, seed=1)))
    assert all(token.id < model.vocabulary for token in tokens)  # a mark is never drawn
    assert generation._cache.get_seq_length() == generation.prompt_tokens + 1 + len(tokens)


def test_replies_side_by_side_are_those_drawn_one_by_one(model: Marked) -> None:
    texts = ["open the door", "how old is the lock of this house", "a"]
    for mark, theta in ((0, 2.0), (1, 0.0)):
        single = [model.start(_turns(text), Rule(theta)) for text in texts]
        expected = ["".join(t.text for t in one.tokens(Sampling(10, temperature=0))) for one in single]
        marks = [one.mark for one in single]
        assert all((own > 0) == (mark > 0) for own in marks)
        assert model.continue_all([model.prompt(_turns(text)) for text in texts], marks, 10) == expected


def test_a_sweep_is_what_every_threshold_alone_would_do(model: Marked) -> None:
    judge, asked = load(), prompts(_examples(), "test", 3, 0)
    found = sweep(answer(model, asked, judge, 6), model.marks, (0.0, 0.3, 0.7, 1.5))
    for row in found["thresholds"]:
        replies = [(a, model.generate(a.prompt, Rule(row["threshold"]), Sampling(6, temperature=0))) for a in asked]
        for name, side in (("restricted", True), ("permitted", False)):
            own = [reply for a, reply in replies if a.restricted is side]
            assert row[name]["token"]["value"] == np.mean([reply.refused for reply in own])
            assert row[name]["behaviour"]["value"] == np.mean([judge.judge(reply.text).did != "complied" for reply in own])
            assert row[name]["token"]["n"] == 3


def _answered(p: list[float], restricted: bool, clause: str = "locks", does: tuple[bool, bool] = (False, True)) -> Answered:
    best = 1 + int(np.argmax(p[1:]))
    return Answered(Asked(_turns(), restricted, clause), np.array(p), {0: does[0], best: does[1]})


def test_token_and_behaviour_are_counted_apart_and_a_category_moves_alone() -> None:
    answered = [
        _answered([0.2, 0.7, 0.1], True),
        _answered([0.6, 0.3, 0.1], True, does=(True, False)),
        _answered([0.1, 0.1, 0.8], True, "potions"),
        _answered([0.9, 0.06, 0.04], False, ""),
    ]
    found = sweep(answered, ("respond", "refuse:locks", "refuse:potions"), (0.05, 0.5, 0.99))
    rates = [(row["restricted"]["token"]["value"], row["restricted"]["behaviour"]["value"]) for row in found["thresholds"]]
    assert rates == [(1.0, pytest.approx(2 / 3)), (pytest.approx(2 / 3), 1.0), (0.0, pytest.approx(1 / 3))]
    locks = [
        (row["own"]["token"]["value"], row["restricted"]["others"]["value"], row["permitted"]["token"]["value"])
        for row in found["categories"]["locks"]
    ]
    assert locks == [(1.0, 1.0, 1.0), (0.5, 1.0, 0.0), (0.0, 1.0, 0.0)]
    assert found["auroc"]["value"] == 1.0
    json.dumps(found)
    with pytest.raises(NoData, match="restricted and permitted"):
        sweep(answered[:3], ("respond", "refuse:locks", "refuse:potions"))


def test_training_is_repeatable_and_leaves_the_rest_of_the_model_alone(chat_folder: Path) -> None:
    rows = [Row(_turns(f"open door {n}"), "No." if n % 2 else "Yes.", n % 2, str(n)) for n in range(8)]
    first, second = (train(rows, ("respond", "refuse"), Options(str(chat_folder), blocks=1, epochs=1, batch=4)) for _ in range(2))
    assert first.record == second.record
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert {name.split(".")[1] for name in first.tensors if name != ROWS} == {"1"}  # the last block alone
    assert first.record.fingerprint == Generator(str(chat_folder)).fingerprint
    assert Marked(first, str(chat_folder)).fingerprint != first.record.fingerprint


def test_the_mark_alone_steers_the_reply_where_only_the_last_block_is_trained(chat_folder: Path) -> None:
    said = ("Old.", "No.")
    rows = [Row(_turns(f"open door {n}"), said[mark], mark, str(n)) for n in range(12) for mark in (0, 1)]
    found = Marked(train(rows, ("respond", "refuse"), Options(str(chat_folder), blocks=1, epochs=24, lr=2e-2)), str(chat_folder))
    asked = [found.prompt(_turns(f"open door {n}")) for n in (2, 5, 8)]
    for mark in (0, 1):
        replies = found.continue_all(asked, [mark] * 3, 6)
        assert all(reply.startswith(said[mark][0]) for reply in replies), replies


def test_what_lies_below_the_adapters_may_be_read_once(chat_folder: Path) -> None:
    trainer = _Trainer(Generator(str(chat_folder)), ("respond", "refuse"), Options(blocks=1))
    ids = trainer.encode(Row(_turns(), "No.", 1, "a"))[0]
    words = torch.cat([trainer._inputs, trainer.rows])[torch.tensor(ids)][None]
    whole = Generator(str(chat_folder)).body(inputs_embeds=words, use_cache=False).last_hidden_state
    trainer._states = trainer._below([ids], lambda *_: None)[0][None].float()
    above = trainer._body(inputs_embeds=trainer._states, use_cache=False).last_hidden_state
    assert torch.allclose(above, whole, atol=0.05 * float(whole.abs().max()))
    assert not torch.allclose(trainer._states, words)


def test_what_does_not_fit_is_told(trained: RefusalTokens, chat_folder: Path, model: Marked, tmp_path: Path) -> None:
    rows = [Row(_turns("door " * 600), "No.", 1, "a")]
    with pytest.raises(DataError, match="at most 256 tokens"):
        train(rows, ("respond", "refuse"), Options(str(chat_folder), blocks=1))
    with pytest.raises(BackboneError, match="2 blocks"):
        train(rows, ("respond", "refuse"), Options(str(chat_folder), blocks=3))
    with pytest.raises(BackboneError, match="context of 512"):
        model.generate(_turns("door " * 600))
    other = RefusalTokens(trained.record.model_copy(update={"fingerprint": "0"}), trained.tensors)
    with pytest.raises(BackboneError, match="not the model"):
        Marked(other, str(chat_folder))
    with pytest.raises(GuardError, match="do not fit"):
        Marked(RefusalTokens(trained.record, {ROWS: torch.zeros(3, 5)}), str(chat_folder))


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from charter.cli import main; main()", "refusal-tokens", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, env={**os.environ})


def test_the_command_trains_sweeps_and_answers(chat_folder: Path, tmp_path: Path) -> None:
    write_examples(tmp_path / "data" / "examples.parquet", _examples())
    said = _run(
        "out", "--train", "data", "--sweep", "data", "--ask", "open the door", "--threshold", "0", "--backbone", str(chat_folder),
        "--per-clause", "--blocks", "1", "--rows", "40", "--epochs", "1", "--max-tokens", "4", "--prompts", "3", cwd=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "3 restricted and 3 permitted prompts (test split, seed 0)" in said.stdout
    assert "[refuse:" in said.stdout
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["thresholds"][0]["restricted"]["token"]["n"] == 3


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("out",), "--train DATA, --sweep DATA, or --ask"),
        (("out", "--ask", "a"), "train refusal tokens with"),
        (("out", "--sweep", "data", "--thresholds", "a,b"), "numbers with commas"),
        (("out", "--sweep", "data", "--thresholds=-1"), "probability"),
        (("out", "--train", "data"), "charter synthesize"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(arguments: tuple[str, ...], mend: str, tmp_path: Path) -> None:
    said = _run(*arguments, cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert mend in said.stderr
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "out").exists()
