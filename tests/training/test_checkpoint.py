import json
from pathlib import Path

import pytest
import torch
from torch import nn

from charter.errors import DataError
from charter.training.checkpoint import Checkpoint


class Run:
    """Two parameters, an optimizer with moments, and a buffer."""

    def __init__(self, steps: int = 0) -> None:
        torch.manual_seed(0)
        self.parameters = {"a": nn.Parameter(torch.randn(3, 2)), "b": nn.Parameter(torch.randn(4))}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=0.1)
        self.buffers = {"mean": torch.zeros(2)}
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        self.optimizer.zero_grad()
        sum((p**2).sum() for p in self.parameters.values()).backward()  # type: ignore[union-attr]
        self.optimizer.step()
        self.buffers["mean"] += 1

    def save(self, checkpoint: Checkpoint, step: int) -> None:
        checkpoint.save(step, self.parameters, self.optimizer, self.buffers)

    def load(self, checkpoint: Checkpoint) -> int:
        return checkpoint.load(self.parameters, self.optimizer, self.buffers)


def test_a_loaded_state_takes_the_same_next_steps(tmp_path: Path) -> None:
    undisturbed, resumed = Run(5), Run()
    Run(3).save(Checkpoint(tmp_path, "r"), 3)
    assert resumed.load(Checkpoint(tmp_path, "r")) == 3
    for _ in range(2):
        resumed.step()
    assert all(torch.equal(p, resumed.parameters[name]) for name, p in undisturbed.parameters.items())
    assert torch.equal(undisturbed.buffers["mean"], resumed.buffers["mean"])


def test_without_a_checkpoint_a_run_starts_at_nought(tmp_path: Path) -> None:
    run = Run()
    before = run.parameters["a"].detach().clone()
    assert run.load(Checkpoint(tmp_path / "nowhere", "r")) == 0
    assert torch.equal(run.parameters["a"], before)


@pytest.mark.parametrize("damage", ["another run", "cut", "no step", "another model"])
def test_a_checkpoint_that_is_not_this_runs_is_one_sentence(damage: str, tmp_path: Path) -> None:
    run, file = Run(2), tmp_path / "checkpoint.safetensors"
    run.save(Checkpoint(tmp_path, "other" if damage == "another run" else "r"), 2)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    if damage == "no step":
        from charter.models.value_head import read_tensors, write_tensors

        write_tensors(file, read_tensors(file)[0], json.dumps({"run": "r"}))
    if damage == "another model":
        run.parameters["b"] = nn.Parameter(torch.zeros(5))
    with pytest.raises(DataError, match="to start afresh") as caught:
        run.load(Checkpoint(tmp_path, "r"))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_log_forgets_the_steps_that_are_done_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "r")
    checkpoint.cut_log(0)
    for step in range(1, 6):
        checkpoint.note({"step": step, "loss": 1 / 3})
    with checkpoint.log.open("a") as file:
        file.write('{"step": 6, "lo')
    checkpoint.cut_log(4)
    entries = [json.loads(line) for line in checkpoint.log.read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert entries[0]["loss"] == pytest.approx(1 / 3, rel=1e-5)
