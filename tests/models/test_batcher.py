"""Streams that share forwards have the scores of streams that don't, in whatever company and order."""

from __future__ import annotations

import copy
import gc
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.batcher import Batcher, gather
from charter.models.cascade import Cascade
from charter.models.probe import Probe
from charter.models.ragged import Keys, Memory, MemoryFull, fits, ragged
from charter.models.scored import Score
from charter.models.stage import ALWAYS, Stage
from charter.records import Turn, View

VIEWS: tuple[View, ...] = ("prompt", "exchange")
Chunker = Callable[[st.DataObject, str], list[str]]


@pytest.fixture(scope="module")
def roomy(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with 256 positions."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("roomy") / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 256}))
    return folder


@pytest.fixture(scope="module")
def alone(roomy: Path) -> Backbone:
    return Backbone(str(roomy))


@pytest.fixture(scope="module", params=["own blocks", "transformers' hook"])
def shared(roomy: Path, request: pytest.FixtureRequest) -> Backbone:
    """The same model once more, with its streams gathered: run block by block, and as models that are no Llama are."""
    backbone = Backbone(str(roomy))
    assert backbone.plain
    backbone.plain = request.param == "own blocks"
    backbone.streams = Batcher(backbone, batch_tokens=24).stream
    return backbone


def cascade_on(backbone: Backbone, like: Cascade, gate: float = ALWAYS, head: float | None = None) -> Cascade:
    """A random probe on a backbone behind the screen, gated or not, and perhaps another one as the last stage."""
    rng = np.random.default_rng(5)
    weights = [{v: rng.normal(size=(3, backbone.width * len(backbone.layers))).astype(np.float32) for v in VIEWS} for _ in range(2)]
    zero = dict.fromkeys(VIEWS, np.zeros(3, np.float32))
    first, last = (Probe(backbone.layers, w, zero) for w in weights)
    made = Cascade(like.clauses, backbone, first, like.screen, like.mix, dict.fromkeys(VIEWS, gate))
    if head is None:
        return made
    return replace(made, head=Stage(last, backbone, dict.fromkeys(VIEWS, 0.4), dict.fromkeys(VIEWS, head), gradual=False))


def read(cascade: Cascade, prompt: str, chunks: Sequence[str]) -> list[Score] | BackboneError:
    """All scores of a conversation, or why there are none."""
    try:
        session = cascade.open([Turn("user", prompt)] if prompt else [])
        return [*session.opening, *(score for chunk in chunks for score in session.push(chunk)), *session.flush()]
    except BackboneError as error:
        return error


def assert_same(one: list[Score] | BackboneError, other: list[Score] | BackboneError) -> None:
    if isinstance(one, BackboneError) or isinstance(other, BackboneError):
        assert str(one) == str(other)
        return
    assert [s.text for s in one] == [s.text for s in other]
    a, b = (1 / (1 + np.exp(-np.array([s.z for s in scores], float))) for scores in (one, other))
    np.testing.assert_allclose(a, b, atol=1e-3)


@settings(max_examples=25)
@given(data=st.data())
def test_a_ragged_forward_gives_each_stream_the_states_of_its_own(data: st.DataObject, alone: Backbone, shared: Backbone) -> None:
    """Streams join at any time, bring any number of tokens, and leave."""
    memory = Memory(2**30)
    _grown_together(data, alone, shared, memory)
    gc.collect()
    assert memory.held == 0


def _grown_together(data: st.DataObject, alone: Backbone, shared: Backbone, memory: Memory) -> None:
    streams = [(alone.stream(), Keys(memory)) for _ in range(data.draw(st.integers(1, 5)))]
    for _ in range(data.draw(st.integers(1, 5))):
        rows = []
        for number in data.draw(st.lists(st.integers(0, len(streams) - 1), min_size=1, unique=True)):
            single, keys = streams[number]
            own = data.draw(st.lists(st.integers(3, 250), max_size=min(alone.context - keys.length, 20)))
            rows += [(single, keys, own)] if own else []
        if rows:
            together = ragged(shared, [(keys, own) for _, keys, own in rows]).split([len(own) for _, _, own in rows])
            for (single, _, own), states in zip(rows, together, strict=True):
                torch.testing.assert_close(states, single.feed(own), atol=1e-4, rtol=1e-4)


@settings(max_examples=20)
@given(data=st.data())
def test_sessions_side_by_side_have_the_scores_of_sessions_alone(
    data: st.DataObject, texts: Any, chunked: Chunker, alone: Backbone, shared: Backbone, random_cascade: Cascade
) -> None:
    """With a probe that reads everything, behind a gate, and with a second stage; some conversations are too long."""
    gate, head = data.draw(st.sampled_from([(ALWAYS, None), (0.0, None), (ALWAYS, 0.0), (-1.0, 0.0)]))
    asked = [
        (data.draw(texts)[:60], chunked(data, data.draw(texts)[: data.draw(st.sampled_from([20, 120]))]))
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    expected = [read(cascade_on(alone, random_cascade, gate, head), *own) for own in asked]
    together = cascade_on(shared, random_cascade, gate, head)
    with ThreadPoolExecutor(len(asked)) as pool:
        for one, other in zip(pool.map(lambda own: read(together, *own), asked), expected, strict=True):
            assert_same(one, other)


def test_the_embedded_model_scores_alike_alone_and_in_company(random_cascade: Cascade) -> None:
    backbone = Backbone("embedded", random_cascade.backbone.layers)
    together = replace(random_cascade, backbone=backbone)
    (batcher,) = gather(together)
    topics = ["locks", "the sea", "a long walk in the rain", "日本語のテキスト", "chess"]
    asked = [
        (f"Tell me about {t}. " * 3 * n, [f" {w}" for w in f"Well, naïve {t} 😀 is old, isn't it?".split()]) for n, t in enumerate(topics)
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda own: read(together, *own), asked))
    for one, own in zip(found, asked, strict=True):
        assert_same(one, read(random_cascade, *own))
    assert batcher.counts.rows > batcher.counts.forwards  # they did share


def test_a_copy_of_a_session_goes_on_by_itself(alone: Backbone, shared: Backbone, random_cascade: Cascade) -> None:
    session = cascade_on(shared, random_cascade).open([Turn("user", "hi")])
    first = session.push("the door is ")
    twin = copy.deepcopy(session)
    twin.push("another one altogether ")
    twin.flush()
    scores = [*session.opening, *first, *session.push("old "), *session.flush()]
    assert_same(scores, read(cascade_on(alone, random_cascade), "hi", ["the door is old "]))


class Held(Batcher):
    """A batcher whose forwards wait until they are let go, and are written down."""

    def __init__(self, backbone: Backbone, **more: Any) -> None:
        super().__init__(backbone, **more)
        self.go, self.entered = threading.Semaphore(0), threading.Semaphore(0)
        self.taken: list[list[int]] = []

    def _forward(self, picked: Any) -> None:
        self.entered.release()
        self.go.acquire()
        self.taken.append([n for _, n in picked])
        super()._forward(picked)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_whoever_waited_longest_is_first_and_no_forward_is_larger_than_it_may(lengths: list[int], shared: Backbone) -> None:
    batcher = Held(shared, batch_tokens=24)
    with ThreadPoolExecutor(len(lengths) + 1) as pool:
        futures = [pool.submit(batcher.stream().feed, [5])]
        assert batcher.entered.acquire(timeout=60)  # the first is in a forward, which waits
        for number, length in enumerate(lengths, 1):
            futures.append(pool.submit(batcher.stream().feed, [5] * length))
            while batcher.waiting < number:
                pass
        batcher.go.release(1_000)
        assert [len(future.result(60)) for future in futures] == [1, *lengths]
    assert all(sum(sizes) <= 24 for sizes in batcher.taken)
    assert sum(map(sum, batcher.taken)) == 1 + sum(lengths)
    turns = expected(lengths, 24)
    assert batcher.taken[1 : 1 + len(turns)] == turns


def expected(lengths: list[int], budget: int) -> list[list[int]]:
    """Forwards by round robin: each in turn up to a share, which is an eighth of the budget or what is left for fewer."""
    queue, forwards = list(lengths), []
    while queue:
        share, room, taken, rests = budget // min(len(queue), 8), budget, [], []
        while queue and room:
            left = queue.pop(0)
            taken.append(min(share, room, left))
            room -= taken[-1]
            rests += [left - taken[-1]] if left > taken[-1] else []
        queue += rests
        forwards.append(taken)
    return forwards


def test_streams_hold_no_more_memory_than_they_may_and_give_it_back(shared: Backbone) -> None:
    size = Keys(Memory(2**30))
    ragged(shared, [(size, [5])])
    batcher = Batcher(shared, most_bytes=2 * size.bytes)
    one, two, three = (batcher.stream() for _ in range(3))
    assert (len(one.feed([5, 6])), len(two.feed([5]))) == (2, 1)
    with pytest.raises(MemoryFull, match="MiB"):
        three.feed([7])
    assert len(one.feed([8])) == 1  # those that are open go on
    with pytest.raises(MemoryFull):
        copy.deepcopy(one)
    del two, three
    gc.collect()
    assert batcher.memory.held == size.bytes
    assert len(batcher.stream().feed([9])) == 1


def test_one_stream_without_room_does_not_take_the_others_with_it(shared: Backbone) -> None:
    size = Keys(Memory(2**30))
    ragged(shared, [(size, [5])])
    batcher = Held(shared, most_bytes=size.bytes)
    with ThreadPoolExecutor(3) as pool:
        first = batcher.stream()
        futures = [pool.submit(first.feed, [5])]
        batcher.go.release()
        futures[0].result(60)
        futures = [pool.submit(first.feed, [6]), pool.submit(batcher.stream().feed, [7])]
        batcher.go.release(100)
        assert len(futures[0].result(60)) == 1
        with pytest.raises(MemoryFull):
            futures[1].result(60)


def test_a_model_with_windows_is_left_alone(tiny_folder: Path) -> None:
    backbone = Backbone(str(tiny_folder))
    backbone.body.config.sliding_window = 8
    assert not fits(backbone)
    with pytest.raises(BackboneError, match="can't share a forward"):
        Batcher(backbone)
