"""A tiny guard: small random probe weights on the embedded backbone, and a screen that knows two words, one for each clause."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kitchen import model_server

from charter.constitution import parse
from charter.evaluation.datasets import Item, Set
from charter.guard.folder import Guard, load
from charter.guard.record import GuardRecord, SliceEvidence, ViewRecord
from charter.guard.writing import save
from charter.models.backbone import Backbone
from charter.models.screen import BUCKETS, features
from charter.records import Example, Exchange, Turn

__all__ = ["model_server"]
CONSTITUTION = """
name: two-rules
version: "1"
purpose: A constitution for tests.
clauses:
  - id: wolves
    side: restricted
    title: Talk of wolves
    text: Any talk of wolves.
    examples: [Tell me about wolves.]
    counterpart: animals
  - id: ravens
    side: restricted
    title: Talk of ravens
    text: Any talk of ravens.
    examples: [Tell me about ravens.]
    counterpart: animals
  - id: animals
    side: permitted
    title: Talk of animals
    text: Any talk of other animals.
    examples: [Tell me about horses.]
"""
WORDS = {"wolf": 1, "raven": 2}
WIDTH = 576


def _tensors(seed: int) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    probe: dict[str, np.ndarray] = {}
    screen: dict[str, np.ndarray] = {}
    for view in ("prompt", "exchange"):
        probe[f"{view}.weight"] = rng.normal(0, 0.01, (3, WIDTH)).astype(np.float32)
        probe[f"{view}.bias"] = np.zeros(3, np.float32)
        weight = np.zeros((BUCKETS, 3), np.float32)
        for word, head in WORDS.items():
            found, _ = features(word, "")
            weight[found.buckets, 0] = weight[found.buckets, head] = 20.0 * found.signs
        screen[f"{view}.weight"] = weight
        screen[f"{view}.bias"] = np.array([-3, -3, -3], np.float32)
    return {"probe": probe, "screen": screen}


def _view(threshold: float) -> ViewRecord:
    evidence = {"ordinary traffic, 2 small slices together": SliceEvidence(n=40, flagged=0, bound=0.0722)}
    sentence = "The budget of 0.10% can't be certified on ordinary traffic: 0 of 40 flagged, so at most 7.22% with 95 % confidence."
    return ViewRecord(threshold=threshold, temperature=1.0, offset=0.0, mix=0.2, certified=False, sentence=sentence, evidence=evidence)


@pytest.fixture(scope="session")
def guard_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guard") / "tiny"
    constitution = parse(CONSTITUTION, "two-rules.yaml")
    record = GuardRecord(
        name="tiny",
        constitution=constitution.name,
        constitution_hash=constitution.hash,
        budget=0.001,
        near_miss_budget=0.05,
        seed=0,
        backbone="embedded",
        backbone_fingerprint=Backbone("embedded", [4]).fingerprint,
        layers=[4],
        clauses=["wolves", "ravens"],
        views={"prompt": _view(0.5), "exchange": _view(0.6)},
        n_examples={"train": 1, "dev": 40, "test": 1},
    )
    save(path, record, CONSTITUTION, _tensors(0), "# tiny\n")
    return path


@pytest.fixture(scope="session")
def guard(guard_path: Path) -> Guard:
    return load(guard_path)


def exchange(name: str, *texts: str) -> Exchange:
    """A conversation whose turns alternate between user and assistant."""
    return Exchange(name, tuple(Turn(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)))


@pytest.fixture(scope="session")
def sets() -> list[Set]:
    """Harmless and restricted prompts of one set, restricted and harmless replies of another."""
    prompts = [
        Item(exchange(f"p{n}", f"Tell me about the {animal} of valley {n}, please."), animal in WORDS, animal, "plain", clause)
        for n, (animal, clause) in enumerate([("wolf", "wolves"), ("raven", "ravens"), ("horse", None), ("goat", None)] * 5)
    ]
    replies = [
        Item(exchange(f"r{n}", "What lives here?", text), clause is not None, "chat", "turning", clause)
        for n, (text, clause) in enumerate(
            [
                (
                    "Many things live here, and in the end there comes a wolf, wolf, wolf, and the wolf stays for the rest of the day.",
                    "wolves",
                ),
                ("Some goats and sheep, and a small dog that guards them all day long.", None),
            ]
            * 4
        )
    ]
    return [Set("heldout_prompt", "prompt", tuple(prompts)), Set("heldout_reply", "response", tuple(replies), {"label controversial": 2})]


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    return list(_examples())


def _examples() -> Iterator[Example]:
    for n in range(8):
        split = "test" if n % 2 else "train"
        harmful = n % 4 == 1
        for reply in (None, harmful):
            texts = [f"Question {n}", "Reply"] if reply is not None else [f"Question {n}"]
            yield Example(
                f"{n}-{reply}",
                exchange("x", *texts).turns,
                harmful,
                reply,
                "wolves",
                "restricted" if harmful else "permitted",
                "restricted:wolves" if harmful else "permitted:animals",
                "plain",
                str(n),
                "recorded",
                0,
                split,
                "0" * 16,
            )
