"""Where a training run stands, on disk: parameters, the optimiser's moments and the step in one safetensors file; a JSONL log.

Together with a schedule that depends on the seed alone this is all there is to a run, so one that was killed goes on as if it
had not been.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from charter.errors import CharterError, DataError
from charter.models.value_head import read_tensors, write_tensors
from charter.records import write_text

FILE, LOG = "checkpoint.safetensors", "log.jsonl"
MOMENTS = ("exp_avg", "exp_avg_sq")


class Checkpoint:
    """The checkpoint and the log of one run, in one folder."""

    def __init__(self, folder: Path, run: str) -> None:
        """`run` tells this run from others: a folder that holds another one is refused."""
        self._file, self.log, self._run = folder / FILE, folder / LOG, run

    def save(
        self, step: int, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, buffers: Mapping[str, Tensor]
    ) -> None:
        """Write the state after `step` steps, to the side and then renamed."""
        tensors = {f"parameter.{name}": p.detach() for name, p in parameters.items()}
        tensors |= {f"buffer.{name}": b for name, b in buffers.items()}
        tensors |= {
            f"{moment}.{name}": optimizer.state[p][moment] for name, p in parameters.items() for moment in MOMENTS if p in optimizer.state
        }
        write_tensors(self._file, {name: t.clone() for name, t in tensors.items()}, json.dumps({"run": self._run, "step": step}))

    def load(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, buffers: Mapping[str, Tensor]) -> int:
        """Take up the state where there is one; returns the steps that were done, 0 without a checkpoint.

        Raises:
            DataError: the folder holds another run, or its checkpoint is damaged.
        """
        if not self._file.exists():
            return 0
        tensors, step = self._read()
        wanted = {f"parameter.{name}": p for name, p in parameters.items()} | {f"buffer.{name}": b for name, b in buffers.items()}
        if any(name not in tensors or tensors[name].shape != held.shape for name, held in wanted.items()):
            raise DataError(f"{self._file}: does not fit the model that is trained; remove it to start afresh")
        with torch.no_grad():
            for name, held in wanted.items():
                held.copy_(tensors[name])
            for name, p in parameters.items():
                if f"exp_avg.{name}" in tensors:
                    moments = {moment: tensors[f"{moment}.{name}"].to(p.device) for moment in MOMENTS}
                    optimizer.state[p] = {"step": torch.tensor(float(step)), **moments}
        return step

    def _read(self) -> tuple[dict[str, Tensor], int]:
        try:
            tensors, text = read_tensors(self._file)
            record: dict[str, Any] = json.loads(text)
            run, step = str(record["run"]), int(record["step"])
        except (CharterError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._file}: can't be read; remove it to start afresh") from error
        if run != self._run:
            raise DataError(
                f"{self._file}: belongs to a run with other data or options; choose another folder, or remove it to start afresh"
            )
        return tensors, step

    def cut_log(self, step: int) -> None:
        """Drop the lines after this step, and a last one that was cut off: those steps are done again."""
        if not self.log.is_file():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if entry["step"] > step:
                break
            kept.append(line + "\n")
        write_text(self.log, "".join(kept))

    def note(self, entry: Mapping[str, float]) -> None:
        """Append a line to the log."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(
                json.dumps({name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in entry.items()}) + "\n"
            )
