import json
from pathlib import Path

import numpy as np
import pytest
import torch

from charter.models.backbone import Backbone
from charter.models.probe import WINDOW
from charter.records import Exchange, Turn, View
from charter.training.activations import STRIDE, ActivationStore, Windows

TEXTS = ["How do I bake bread?", "kill -9 " * 30, "Привет, как дела? 世界 " * 5, "def f(x):\n    return x + 1\n" * 6, "yes"]


def exchanges() -> list[Exchange]:
    prompts = [Exchange(f"p{n}", (Turn("user", text),)) for n, text in enumerate(TEXTS)]
    replies = [Exchange(f"r{n}", (Turn("user", "Go on."), Turn("assistant", text))) for n, text in enumerate(TEXTS)]
    return prompts + replies


HIDDEN = "Where can I find a quiet place to read about tulips?"[::-1]


def by_hand(backbone: Backbone, exchange: Exchange, view: View, window: int = WINDOW) -> np.ndarray:
    """Window means from one stream, the slow way."""
    *before, last = exchange.turns
    turns = [*backbone.encoder.prompt(before), *([backbone.encoder.turn(last)] if view != "prompt" else backbone.encoder.prompt([last]))]
    pieces = [(number, piece) for number, turn in enumerate(turns) for piece in turn]
    states = backbone.stream().feed([i for _, p in pieces for i in p.ids])
    owners = [number if p.text is not None else -1 for number, p in pieces for _ in p.ids]
    means = []
    for number in range(len(turns)):
        if view != "prompt" and number < len(turns) - 1:
            continue
        own = states[torch.tensor(owners) == number]
        ends = sorted({*range(window, len(own), min(STRIDE, window)), len(own)})
        means += [own[max(0, end - window) : end].mean(0).flatten() for end in ends]
    return torch.stack(means).numpy()


@pytest.mark.parametrize(("view", "window"), [("prompt", WINDOW), ("exchange", WINDOW), ("prompt", 3), ("exchange", 40)])
def test_stored_windows_are_the_means_of_the_streamed_states(view: View, window: int, embedded_backbone: Backbone, tmp_path: Path) -> None:
    own = [e for e in exchanges() if (e.reply is None) == (view == "prompt")]
    windows = ActivationStore(tmp_path, embedded_backbone, window).windows(own, view)
    for number, exchange in enumerate(own):
        expected = by_hand(embedded_backbone, exchange, view, window)
        found = windows.take(np.flatnonzero(windows.owner == number))
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()


def test_what_a_disguised_prompt_says_has_windows_of_its_own(embedded_backbone: Backbone, tmp_path: Path) -> None:
    said, hidden = (Exchange("x", (Turn("user", text),)) for text in (HIDDEN[::-1], HIDDEN))
    assert embedded_backbone.encoder.deciphered(HIDDEN) == HIDDEN[::-1]
    windows = ActivationStore(tmp_path, embedded_backbone).windows([said, hidden], "prompt")
    plain, read = (windows.take(np.flatnonzero(windows.owner == number)) for number in (0, 1))
    assert len(read) > len(plain)
    expected = by_hand(embedded_backbone, hidden, "prompt")
    assert np.abs(read - expected).max() <= 2e-3 * np.abs(expected).max()


def test_a_second_pass_computes_nothing(embedded_backbone: Backbone, tmp_path: Path) -> None:
    first = ActivationStore(tmp_path, embedded_backbone).windows(exchanges()[:3], "prompt")
    data = next(tmp_path.glob("*/windows.f16"))
    size = data.stat().st_size
    again = ActivationStore(tmp_path, embedded_backbone).windows(exchanges()[:3], "prompt")
    assert data.stat().st_size == size
    assert np.array_equal(first.take(slice(None)), again.take(slice(None)))


def test_progress_counts_exchanges_whatever_their_length(embedded_backbone: Backbone, tmp_path: Path) -> None:
    long = Exchange("long", (Turn("user", "word " * 1_500),))
    told: list[int] = []
    store = ActivationStore(tmp_path, embedded_backbone)
    store.windows([*exchanges()[:3], long, long], "prompt", told.append)
    assert sum(told) == 5
    told.clear()
    store.windows([long, *exchanges()[2:5]], "prompt", told.append)
    assert (told[0], sum(told)) == (2, 4)


def test_a_pass_killed_in_the_middle_of_a_write_is_continued(embedded_backbone: Backbone, tmp_path: Path) -> None:
    whole = ActivationStore(tmp_path / "whole", embedded_backbone).windows(exchanges()[:5], "prompt")
    ActivationStore(tmp_path / "cut", embedded_backbone).windows(exchanges()[:3], "prompt")
    folder = next((tmp_path / "cut").iterdir())
    with (folder / "windows.f16").open("ab") as file:
        file.write(b"half a window")
    with (folder / "index.jsonl").open("a") as file:
        file.write(json.dumps(["0" * 24, 0, 1])[:-3])
    resumed = ActivationStore(tmp_path / "cut", embedded_backbone).windows(exchanges()[:5], "prompt")
    assert resumed.take(slice(None)).shape == whole.take(slice(None)).shape
    assert np.abs(resumed.take(slice(None)) - whole.take(slice(None))).max() < 0.05


def test_an_index_without_its_data_is_not_believed(embedded_backbone: Backbone, tmp_path: Path) -> None:
    ActivationStore(tmp_path, embedded_backbone).windows(exchanges()[:2], "prompt")
    data = next(tmp_path.glob("*/windows.f16"))
    data.write_bytes(data.read_bytes()[:100])
    windows = ActivationStore(tmp_path, embedded_backbone).windows(exchanges()[:2], "prompt")
    assert np.abs(windows.take(np.flatnonzero(windows.owner == 0)) - by_hand(embedded_backbone, exchanges()[0], "prompt")).max() < 1


def test_windows_of_some_exchanges_come_in_their_order_and_as_often() -> None:
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(20), rng.integers(1, 5, 20))
    windows = Windows(rng.normal(size=(len(owner) + 3, 4)).astype(np.float16), np.arange(len(owner)) + 3, owner)
    picked = np.array([5, 0, 5, 19])
    own = windows.of(picked)
    for place, number in enumerate(picked):
        assert np.array_equal(own.take(np.flatnonzero(own.owner == place)), windows.take(np.flatnonzero(owner == number)))


def test_the_reply_view_stores_what_a_reply_without_a_prompt_gives(embedded_backbone: Backbone, tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, embedded_backbone)
    whole = [e for e in exchanges() if e.reply is not None]
    alone = [Exchange(e.id, e.turns[-1:]) for e in whole]
    first, second = store.windows(whole, "reply"), store.windows(alone, "exchange")
    assert np.array_equal(first.rows, second.rows)
