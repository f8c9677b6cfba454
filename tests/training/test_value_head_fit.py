"""Training a value head: it learns, it can be killed at any step, and what is wrong is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from charter.errors import DataError
from charter.models.value_head import Tuned, ValueHead
from charter.records import Exchange, Turn, View
from charter.training.rows import encode
from charter.training.table import Table
from charter.training.value_head import Options, fit_value_head

QUICK = Options(blocks=1, rank=4, epochs=40, lr=2e-2, next_token=0.0, batch_tokens=256, precision="fp32", save_every=10)


def table(view: View, n: int = 20) -> Table:
    """Texts that are restricted where locks open; after a harmless opening, so only the end can tell. One clause takes half of them."""
    texts = [f"the old house {k} {'opens the lock' if k % 2 else 'is the old door'}" for k in range(n)]
    opening = () if view == "prompt" else (Turn("user", "the house"),)
    exchanges = [
        Exchange(f"{view}-{k}", (*opening, Turn("user" if view == "prompt" else "assistant", text))) for k, text in enumerate(texts)
    ]
    labels = np.array([[k % 2, k % 4 == 1] for k in range(n)], np.float32)
    return Table(view, ("locks",), exchanges, labels, ["s"] * n, ["p"] * n, frozenset(), n)


TABLES = [table("prompt"), table("exchange")]


class Killed(Exception):
    """What ends a run in the middle."""


def kill_at(step: int) -> Any:
    def progress(_stage: str, done: int, _total: int) -> None:
        if done == step:
            raise Killed

    return progress


def running_maxima(head: ValueHead, own: Table) -> np.ndarray:
    """Highest logit of each exchange over its scored tokens: [exchanges, heads]."""
    out = []
    for exchange in own.exchanges:
        ids, scored = encode(head.backbone.encoder, exchange, own.view)
        out.append(head.batch([ids], own.view)[0][np.array(scored)].max(0))
    return np.stack(out)


@pytest.mark.parametrize("rank", [0, 4])
def test_twenty_texts_are_learned_by_heart(rank: int, tiny_folder: Path, tmp_path: Path) -> None:
    options = replace(QUICK, backbone=str(tiny_folder), rank=rank, epochs=60)
    head = ValueHead(fit_value_head(TABLES, tmp_path, options))
    assert head.clauses == ("locks",)
    for own in TABLES:
        found = running_maxima(head, own)
        assert ((found[:, 0] > 0) == (own.labels[:, 0] > 0)).all()
        assert found[own.labels[:, 0] == 1, 0].min() > found[own.labels[:, 0] == 0, 0].max() + 1


def tied(tiny_folder: Path, folder: Path) -> str:
    """The tiny model with its embeddings as its output head, so that it has a next-token loss."""
    config = json.loads((shutil.copytree(tiny_folder, folder) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    return str(folder)


def test_the_next_token_loss_is_learned_as_far_as_it_weighs(tiny_folder: Path, tmp_path: Path) -> None:
    last = []
    for weight in (1e-6, 5.0):
        options = replace(QUICK, backbone=tied(tiny_folder, tmp_path / f"tied-{weight}"), epochs=20, next_token=weight)
        fit_value_head(TABLES[:1], tmp_path / f"run-{weight}", options)
        lines = [json.loads(line) for line in (tmp_path / f"run-{weight}" / "log.jsonl").read_text().splitlines()]
        last.append(np.mean([line["next_token_loss"] for line in lines[-8:]]))
    assert last[1] < last[0] - 0.1


def test_the_log_has_a_line_a_step_and_its_parts_add_up(tiny_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    options = replace(QUICK, backbone=tied(tiny_folder, tmp_path / "tied"), epochs=10, next_token=0.5)
    fit_value_head(TABLES, tmp_path / "run", options, lambda *step: seen.append(step))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert seen == [("value head", done, len(lines)) for done in range(len(lines) + 1)]
    for line in lines:
        assert line["loss"] == pytest.approx(line["head_loss"] + 0.5 * line["next_token_loss"], rel=1e-4)
        assert line["next_token_loss"] > 0
        assert 0 < line["lr"] <= options.lr
        assert line["tokens_per_second"] > 0
    assert [lines[0]["omega"], lines[-1]["omega"]] == [0, 1]
    assert sorted(line["omega"] for line in lines) == [line["omega"] for line in lines]


@pytest.mark.parametrize("epochs", [1, 6])
@pytest.mark.parametrize("kills", [(1,), (5, 3, 2)])
def test_a_killed_and_resumed_run_gives_the_weights_of_an_undisturbed_one(
    kills: tuple[int, ...], epochs: int, tiny_folder: Path, tmp_path: Path
) -> None:
    own = [table("prompt", 60 if epochs == 1 else 20), TABLES[1]]
    options = replace(QUICK, backbone=str(tiny_folder), epochs=epochs, batch_tokens=128, save_every=2)
    whole = fit_value_head(own, tmp_path / "whole", options)
    done = 0
    for step in kills:
        with pytest.raises(Killed):
            fit_value_head(own, tmp_path / "cut", options, kill_at(done + step))
        done = (done + step) // 2 * 2
    resumed = fit_value_head(own, tmp_path / "cut", options)
    assert whole.tensors.keys() == resumed.tensors.keys()
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())
    logs = [[json.loads(line) for line in (tmp_path / run / "log.jsonl").read_text().splitlines()] for run in ("whole", "cut")]
    for line in [line for log in logs for line in log]:
        del line["tokens_per_second"]
    assert logs[0] == logs[1]


def test_a_finished_run_called_again_only_exports(tiny_folder: Path, tmp_path: Path) -> None:
    options = replace(QUICK, backbone=str(tiny_folder), epochs=2)
    first = fit_value_head(TABLES, tmp_path, options)
    log = (tmp_path / "log.jsonl").read_text()
    again = fit_value_head(TABLES, tmp_path, options)
    assert all(torch.equal(tensor, again.tensors[name]) for name, tensor in first.tensors.items())
    assert (tmp_path / "log.jsonl").read_text() == log
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]


def test_frozen_states_from_the_disk_change_no_more_than_float16_does(tiny_folder: Path, tmp_path: Path) -> None:
    """One epoch runs the frozen blocks each time, two run them once: the first epoch's losses agree."""
    options = replace(QUICK, backbone=str(tiny_folder), epochs=1, max_steps=3)
    losses = []
    for epochs in (1, 2):
        fit_value_head(TABLES, tmp_path / str(epochs), replace(options, epochs=epochs))
        losses.append([json.loads(line)["loss"] for line in (tmp_path / str(epochs) / "log.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("change", [{"checkpointing": True}, {"precision": "bf16"}])
def test_recomputed_activations_and_bfloat16_take_the_same_course(change: dict[str, Any], tiny_folder: Path, tmp_path: Path) -> None:
    options = replace(QUICK, backbone=str(tiny_folder), epochs=4)
    losses = []
    for number, own in enumerate((options, replace(options, **change))):
        fit_value_head(TABLES, tmp_path / str(number), own)
        losses.append([json.loads(line)["loss"] for line in (tmp_path / str(number) / "log.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4 if "checkpointing" in change else 0.1)


def test_the_first_loss_is_that_of_the_base_rates(tiny_folder: Path, tmp_path: Path) -> None:
    own = table("prompt")
    own.labels[:, 0] = np.arange(20) < 5
    fit_value_head([own], tmp_path, replace(QUICK, backbone=str(tiny_folder), epochs=1, batch_tokens=10_000))
    first = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["loss"]
    expected = 0.0
    for positives in (own.labels[:, 0].sum(), own.labels[:, 1].sum()):
        p = (positives + 1) / 22
        expected -= (positives * np.log(p) + (20 - positives) * np.log(1 - p)) / 20
    assert first == pytest.approx(expected, rel=1e-4)


def test_the_embedded_model_learns_at_a_few_blocks_and_survives_the_disk(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    options = replace(QUICK, backbone="embedded", depth=3, epochs=8, lr=3e-3, batch_tokens=512)
    tuned = fit_value_head(TABLES, tmp_path / "run", options)
    tuned.save(tmp_path / "value_head.safetensors")
    head = ValueHead(Tuned.load(tmp_path / "value_head.safetensors"))
    for own in TABLES:
        found = running_maxima(head, own)
        assert ((found[:, 0] > 0) == (own.labels[:, 0] > 0)).all()


def test_a_folder_with_another_run_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    options = replace(QUICK, backbone=str(tiny_folder), epochs=1)
    fit_value_head(TABLES, tmp_path, options)
    for tables, other in ((TABLES[:1], options), (TABLES, replace(options, seed=1))):
        with pytest.raises(DataError, match="other data or options"):
            fit_value_head(tables, tmp_path, other)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the loss of step \d+ of \d+ is not finite .*lower the learning rate"):
        fit_value_head(TABLES, tmp_path, replace(QUICK, backbone=str(tiny_folder), lr=1e30))
    assert (tmp_path / "log.jsonl").read_text().count("NaN") == 0


def test_nothing_to_train_on_and_mixed_clauses_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    options = replace(QUICK, backbone=str(tiny_folder))
    with pytest.raises(DataError, match="no row to train on"):
        fit_value_head([replace(TABLES[0], exchanges=[], labels=np.zeros((0, 2), np.float32))], tmp_path, options)
    with pytest.raises(DataError, match="different clauses"):
        fit_value_head([TABLES[0], replace(TABLES[1], clauses=("potions",))], tmp_path, options)
    with pytest.raises(DataError, match="needs all blocks"):
        fit_value_head(TABLES, tmp_path, replace(options, depth=1, next_token=0.1))


SCRIPT = """
import sys
from pathlib import Path
import torch
from test_value_head_fit import QUICK, TABLES, replace
from charter.training.value_head import fit_value_head
from os import environ
torch.set_num_threads(1)
folder = Path(sys.argv[2])
tuned = fit_value_head(TABLES, folder, replace(QUICK, backbone=sys.argv[1], epochs=4, batch_tokens=128))
tuned.save(folder / f"of-{environ['RANK']}.safetensors")
"""


def test_two_processes_share_the_steps_and_end_with_the_same_weights(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "run.py")]
    done = subprocess.run(
        [*command, str(tiny_folder), str(tmp_path / "two")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    fit_value_head(TABLES, tmp_path / "one", replace(QUICK, backbone=str(tiny_folder), epochs=4, batch_tokens=128))
    first, second = (Tuned.load(tmp_path / "two" / f"of-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    steps = [len((tmp_path / run / "log.jsonl").read_text().splitlines()) for run in ("one", "two")]
    assert steps[1] == -(-steps[0] // 2)
