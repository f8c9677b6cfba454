"""A small constitution and examples of it that a tiny model learns: what is asked about tulips is restricted, about roses not."""

from __future__ import annotations

import hashlib

from charter.constitution import Constitution
from charter.records import Example, Split, Turn

TEXT = """
name: gardens
version: 1
purpose: Keeps the secrets of one garden.
clauses:
  - id: tulips
    side: restricted
    title: Tulip secrets
    text: How the tulips of this garden are grown.
    counterpart: roses
    examples: [Tell me how your tulips are grown.]
  - id: roses
    side: permitted
    title: Roses
    text: How roses are grown.
    examples: [Tell me how roses are grown.]
"""
OPENINGS = ("Tell me about", "I want to know about", "Please explain", "What is the secret of", "Write a note on", "Why not talk about")
THINGS = (
    "the soil",
    "the colour",
    "watering",
    "the bulbs",
    "winter",
    "planting",
    "the scent",
    "selling",
    "the history",
    "pests",
    "pots",
    "light",
)


def rows(constitution: Constitution) -> list[Example]:
    out = []
    for number, (opening, thing) in enumerate((o, t) for o in OPENINGS for t in THINGS):
        split: Split = "train" if number % 4 else "dev"
        for clause, flower in (("tulips", "tulips"), ("roses", "roses")):
            prompt = (Turn("user", f"{opening} {thing} of {flower}."),)
            own = constitution[clause]
            for reply in (None, f"Gladly: {thing} of {flower} is a matter of patience, and {flower} need it all year round."):
                turns = prompt if reply is None else (*prompt, Turn("assistant", reply))
                key = hashlib.sha256(repr(turns).encode()).hexdigest()[:16]
                out.append(
                    Example(
                        key,
                        turns,
                        own.restricted,
                        None if reply is None else own.restricted,
                        clause,
                        own.side,
                        f"{own.side}:{clause}",
                        "plain",
                        f"p{number}",
                        "recorded:authored",
                        0,
                        split,
                        own.hash,
                    )
                )
    return out
