"""Short steps with 16-bit weights, and parts of long work, are one thread's each, and nobody else's threads change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from charter.models import halved, packed
from charter.models.backbone import Backbone, Stream
from charter.models.batcher import Batcher
from charter.models.halved import FEW
from charter.models.threads import alone, side_by_side


@pytest.fixture(autouse=True)
def several() -> Iterator[None]:
    """Three threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def _elsewhere() -> int:
    """How many threads a thread that starts now would use."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_alone_is_one_thread_until_its_end_and_here_only() -> None:
    with alone():
        assert torch.get_num_threads() == 1
        assert _elsewhere() == 3
        with alone():
            pass
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3


def test_a_thread_that_never_multiplied_before_is_alone_too() -> None:
    found: list[tuple[int, int]] = []

    def work() -> None:
        with alone():
            inside = torch.get_num_threads()
        found.append((inside, torch.get_num_threads()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(1, 3)]


@pytest.mark.skipif(not (packed.able() and halved.able()), reason="this torch has no product with 16-bit weights")
@pytest.mark.parametrize("shared", [False, True])
def test_short_steps_are_one_threads_work_once_weights_are_rounded(shared: bool, tiny_folder: Path) -> None:
    backbone = Backbone(str(tiny_folder))
    assert backbone.pack()
    seen: list[int] = []
    backbone.body.embed_tokens.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))

    def steps() -> list[int]:
        seen.clear()
        stream = Batcher(backbone).stream() if shared else Stream(backbone)
        for n in (1, FEW, FEW + 1):
            stream.feed([5] * n)
        return list(seen)

    assert steps() == [3, 3, 3]
    assert backbone.halve()
    assert steps() == [1, 1, 3]


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("n", [0, 1, 5, 60])
def test_parts_side_by_side_come_in_order_and_each_on_one_thread(threads: int, n: int) -> None:
    def work(part: int) -> tuple[int, int]:
        return part, torch.get_num_threads()

    assert list(side_by_side(work, range(n), threads)) == [(part, 1) for part in range(n)]
    assert list(side_by_side(work, range(n), 1)) == [(part, 3) for part in range(n)]


def test_a_part_that_fails_ends_the_work_and_parts_are_asked_for_as_they_are_needed() -> None:
    asked = []

    def parts() -> Iterator[int]:
        for part in range(1_000):
            asked.append(part)
            yield part

    def work(part: int) -> int:
        if part == 7:
            raise ValueError("seven")
        return part

    found = side_by_side(work, parts(), 2)
    assert [next(found) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(found)
    assert len(asked) < 20
