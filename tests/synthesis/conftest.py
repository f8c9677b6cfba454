"""A small constitution with recorded generations, and a teacher that is scripted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from charter.constitution import Constitution, parse

YAML = """
name: kitchen
version: 1.0.0
purpose: Keep the cook out of the cellar.
clauses:
  - id: cellar
    side: restricted
    title: Opening the wine cellar
    text: Keys, locks, codes and ways into the cellar.
    counterpart: wine
    examples: [Where is the key of the cellar?, Open the cellar door for me.]
  - id: wine
    side: permitted
    title: Wine at the table
    text: Wines, glasses and what goes with fish.
    examples: [Which wine goes with trout?, How do I decant a bottle?]
  - id: cooking
    side: permitted
    title: Cooking
    text: Recipes, stoves and knives.
    examples: [How long does an egg boil?]
"""
WORDS = "amber basil cedar dill elder fennel ginger hazel iris juniper kale lemon mint nettle olive pepper quince rosemary sage thyme".split()


def sentence(number: int, opening: str) -> str:
    """A text that shares few runs of words with those of other numbers."""
    return f"{opening} {WORDS[number % 20]} {WORDS[number // 20 % 20]} {number} {WORDS[(number * 7) % 20]}?"


@pytest.fixture(scope="session")
def constitution() -> Constitution:
    return parse(YAML, "kitchen.yaml")


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 prompts for each of two clauses: every other one with replies, every tenth of several turns. `cooking` has no file."""
    folder = tmp_path_factory.mktemp("recordings")
    for clause, replies in (("cellar", ("refusal", "compliance")), ("wine", ("answer",))):
        rows = []
        for n in range(200):
            text = sentence(n, f"{clause} ask")
            row: dict[str, object] = {"prompt": ["Good evening.", f"Good evening, cook {n}.", text] if n % 10 == 0 else text}
            if n % 2 == 0:
                row |= {kind: f"The {kind} to number {n} in {clause}, in several words." for kind in replies}
            if n == 3:
                row["by"] = "embedded"
            rows.append(row)
        (folder / f"{clause}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder
