"""A random sentence encoder's layer beside a cascade."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from charter.models.cascade import Cascade
from charter.models.glance import Glance
from charter.models.probe import Hidden
from charter.models.sentence import SentenceEncoder
from charter.models.whole import Whole


def listening(cascade: Cascade, folder: str, share: float = 0.4) -> Cascade:
    """The cascade with the encoder of a folder, its layer of eight units random."""
    rng = np.random.default_rng(2)
    encoder, heads = SentenceEncoder(folder), 1 + len(cascade.clauses)
    inner, outer = rng.normal(0, 3, (8, encoder.width)), rng.normal(0, 3, (heads, 8))
    layer = Hidden(inner.astype(np.float32), np.zeros(8, np.float32), outer.astype(np.float32))
    return replace(cascade, whole=Whole(encoder, layer, np.zeros(heads, np.float32), share, glance=glance(encoder.width)))


def glance(width: int) -> Glance:
    """Random, of four units; what it says of texts lies about nothing."""
    rng = np.random.default_rng(3)
    inner, outer = rng.normal(0, 30, (4, width)), rng.normal(0, 3, (1, 4))
    return Glance(Hidden(inner.astype(np.float32), np.zeros(4, np.float32), outer.astype(np.float32)), 0.0)
