"""calibration.safetensors: the dev split's scores, kept in a guard so that its thresholds can be moved without a forward.

For each view `<view>.logits` float32 [rows, heads], running maxima at the end of each exchange; `<view>.labels` uint8 [rows, heads];
`<view>.slices` int32 [rows], places in the list of slices in guard.json. No text, and nothing that serving needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charter.errors import GuardError
from charter.guard.folder import KEPT
from charter.guard.record import GuardRecord
from charter.models.recalibrate import DevScores
from charter.records import View

FILE = KEPT


def tensors(dev: Mapping[View, DevScores]) -> dict[str, NDArray[Any]]:
    """The arrays of the file by name. The slices' names belong in guard.json."""
    out: dict[str, NDArray[Any]] = {}
    for view, scores in dev.items():
        out[f"{view}.logits"] = scores.logits.astype(np.float32)
        out[f"{view}.labels"] = scores.labels.astype(np.uint8)
        out[f"{view}.slices"] = scores.slice_of.astype(np.int32)
    return out


def read(folder: Path, record: GuardRecord) -> dict[View, DevScores]:
    """The dev scores of a guard folder whose hashes have been checked.

    Raises:
        GuardError: there are none, or they are damaged or don't fit guard.json.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / FILE
    if FILE not in record.files:
        raise GuardError(f"{folder}: holds no {FILE}, so its thresholds can't be moved without its data; name the folder with --data")
    try:
        arrays = load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise GuardError(f"{path}: can't be read as safetensors ({error})") from error
    heads = 1 + len(record.clauses)
    return {view: _scores(arrays, view, heads, of.slices, path) for view, of in record.views.items()}


def _scores(arrays: Mapping[str, NDArray[Any]], view: View, heads: int, names: list[str], path: Path) -> DevScores:
    """One view's, checked."""
    logits, labels, slices = (arrays.get(f"{view}.{part}") for part in ("logits", "labels", "slices"))
    if logits is None or labels is None or slices is None:
        raise GuardError(f"{path}: {view} needs logits, labels and slices; train the guard again")
    rows = len(slices) if slices.ndim == 1 else -1
    kinds = [str(array.dtype) for array in (logits, labels, slices)]
    if kinds != ["float32", "uint8", "int32"] or logits.shape != (rows, heads) or labels.shape != (rows, heads):
        raise GuardError(f"{path}: {view} needs float32 logits and uint8 labels of shape [rows, {heads}] and int32 slices [rows]")
    if not np.isfinite(logits).all() or (labels > 1).any() or (labels[:, 1:] > labels[:, :1]).any():
        raise GuardError(f"{path}: {view} holds logits that are not finite, or labels that can't be; train the guard again")
    if ((slices < 0) | (slices >= len(names))).any():
        raise GuardError(f"{path}: {view} counts slices that guard.json does not name; train the guard again")
    return DevScores(logits, labels.astype(bool), tuple(names), slices)
