"""The value head as it serves: merged equals unmerged, streamed equals batched, and a strange file is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from heads import random_change
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError, CharterError, GuardError
from charter.models.value_head import FinalBackbone, Tuned, ValueHead, write_tensors

HEADS = 3


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Tuned:
    return random_change(str(tiny_folder), None, 1)


@pytest.fixture(scope="module")
def head(tiny: Tuned) -> ValueHead:
    return ValueHead(tiny)


def by_hand(tuned: Tuned, row: list[int], view: str) -> np.ndarray:
    """Logits with the adapters beside the weights: y = W x + b (a x), added by hooks to a model that is otherwise as it was."""
    backbone = FinalBackbone(tuned.record.backbone, tuned.record.depth)
    for name, a in tuned.tensors.items():
        if name.endswith(".a"):
            b = tuned.tensors[name.removesuffix("a") + "b"]
            backbone.model.get_submodule(name.removesuffix(".a")).register_forward_hook(lambda _m, x, y, a=a, b=b: y + x[0] @ a.T @ b.T)
    with torch.no_grad():
        final = backbone.model(input_ids=torch.tensor([row])).last_hidden_state[0]
    return (final @ tuned.tensors[f"head.{view}.weight"].T + tuned.tensors[f"head.{view}.bias"]).numpy()


@pytest.mark.parametrize("view", ["prompt", "exchange"])
def test_merged_adapters_are_the_adapters_beside_the_weights(view: Any, tiny: Tuned, head: ValueHead) -> None:
    row = [5, 60, 7, 9, 200, 41]
    expected = by_hand(tiny, row, view)
    assert np.allclose(head.batch([row], view)[0], expected, atol=1e-4)
    plain = replace(tiny, tensors={name: t for name, t in tiny.tensors.items() if name.startswith("head.")})
    assert np.abs(ValueHead(plain).batch([row], view)[0] - expected).max() > 0.05  # else the change would be too small to test anything


def test_whole_weights_take_the_place_of_the_backbones(tiny_folder: Path) -> None:
    tuned = random_change(str(tiny_folder), None, 1, whole=True)
    backbone, row = FinalBackbone(str(tiny_folder)), [5, 60, 7]
    parameters = dict(backbone.model.named_parameters())
    with torch.no_grad():
        for name, tensor in tuned.tensors.items():
            if name in parameters:
                parameters[name].copy_(tensor)
        final = backbone.model(input_ids=torch.tensor([row])).last_hidden_state[0]
    expected = final @ tuned.tensors["head.prompt.weight"].T + tuned.tensors["head.prompt.bias"]
    assert np.allclose(ValueHead(tuned).batch([row], "prompt")[0], expected.numpy(), atol=1e-5)


@given(data=st.data(), lengths=st.lists(st.integers(1, 64), min_size=1, max_size=3))
def test_streamed_logits_are_the_running_maxima_of_the_padded_batchs(data: st.DataObject, lengths: list[int], head: ValueHead) -> None:
    rows = [data.draw(st.lists(st.integers(0, 250), min_size=n, max_size=n)) for n in lengths]
    for row, expected in zip(rows, head.batch(rows, "exchange"), strict=True):
        assert expected.shape == (len(row), HEADS)
        cuts = sorted({0, len(row), *data.draw(st.lists(st.integers(0, len(row)), max_size=6))})
        stream, turn = head.backbone.stream(), head.turn("exchange")
        streamed = np.concatenate([turn.push(stream.feed(row[a:b])) for a, b in pairwise(cuts)])
        assert np.allclose(streamed, np.maximum.accumulate(expected), atol=1e-3)


def test_a_saved_head_scores_as_before(tiny: Tuned, head: ValueHead, tmp_path: Path) -> None:
    tiny.save(tmp_path / "value_head.safetensors")
    loaded = Tuned.load(tmp_path / "value_head.safetensors")
    assert loaded.record == tiny.record
    assert loaded.views == ("prompt", "exchange")
    assert [p.name for p in tmp_path.iterdir()] == ["value_head.safetensors"]
    row = [5, 60, 7, 9]
    assert np.array_equal(ValueHead(loaded).batch([row], "exchange")[0], head.batch([row], "exchange")[0])


def test_the_cost_is_that_of_the_blocks_and_heads_and_no_adapter(tiny_folder: Path, head: ValueHead) -> None:
    plain = FinalBackbone(str(tiny_folder))
    assert head.flops_per_token == 2 * HEADS * plain.width
    assert head.backbone.flops_per_token == plain.flops_per_token
    assert head.backbone.fingerprint != plain.fingerprint


def test_a_merged_backbone_is_not_changed_twice(tiny: Tuned) -> None:
    backbone = FinalBackbone(tiny.record.backbone)
    backbone.merge(tiny)
    with pytest.raises(BackboneError, match="is not the model that the value head was trained on"):
        backbone.merge(tiny)


def test_another_backbone_or_depth_is_refused(tiny: Tuned) -> None:
    with pytest.raises(BackboneError, match="is not the model that the value head was trained on"):
        ValueHead(replace(tiny, record=tiny.record.model_copy(update={"fingerprint": "0" * 16})))
    with pytest.raises(BackboneError, match="is not the model that the value head was trained on"):
        ValueHead(replace(tiny, record=tiny.record.model_copy(update={"depth": 1})))


Q = "layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({f"{Q}.a": torch.zeros(2, 15)}, id="narrow factor"),
        pytest.param({f"{Q}.a": torch.zeros(3, 16)}, id="ranks differ"),
        pytest.param({f"{Q}.a": torch.zeros(16)}, id="vector for a matrix"),
        pytest.param({f"{Q}.a": None}, id="half of a pair, b"),
        pytest.param({f"{Q}.b": None}, id="half of a pair, a"),
        pytest.param({f"{Q}.weight": torch.zeros(16, 15)}, id="whole weight of another shape"),
        pytest.param({"layers.0.self_attn.q_proj.weight": torch.zeros(16, 16)}, id="block that was not trained"),
        pytest.param({"layers.7.self_attn.q_proj.weight": torch.zeros(16, 16)}, id="no such block"),
        pytest.param({"layers.1.self_attn.w_proj.weight": torch.zeros(16, 16)}, id="no such map"),
        pytest.param({"embed_tokens.weight": torch.zeros(320, 16)}, id="not a block"),
        pytest.param({"layers.1.__class__.weight": torch.zeros(16, 16)}, id="not a parameter"),
        pytest.param({"head.prompt.weight": torch.zeros(HEADS, 15)}, id="heads of another width"),
    ],
)
def test_tensors_that_do_not_fit_the_backbone_are_refused(change: dict[str, torch.Tensor | None], tiny: Tuned) -> None:
    tensors = {name: t for name, t in {**tiny.tensors, **change}.items() if t is not None}
    with pytest.raises(GuardError, match="train it again") as caught:
        ValueHead(replace(tiny, tensors=tensors))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    ["missing", "empty", "cut", "flipped header", "text", "pickle", "link", "no record", "bad record", "other kind", "later schema",
     "no heads", "too few heads", "no bias", "not finite"],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_one_sentence(damage: str, tiny: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "value_head.safetensors"
    tiny.save(path)
    whole, record, tensors = path.read_bytes(), json.loads(tiny.record.model_dump_json()), dict(tiny.tensors)
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "flipped header":
            path.write_bytes(whole[:9] + b"\xff" + whole[10:])
        case "text":
            path.write_text("What is this?")
        case "pickle":
            torch.save(tensors, path)
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "no record":
            from safetensors.torch import save_file

            save_file(tensors, path)
        case "bad record":
            write_tensors(path, tensors, "{")
        case "other kind":
            write_tensors(path, tensors, json.dumps({**record, "kind": "probe"}))
        case "later schema":
            write_tensors(path, tensors, json.dumps({**record, "schema_version": 2}))
        case "no heads":
            write_tensors(path, {name: t for name, t in tensors.items() if not name.startswith("head.")}, json.dumps(record))
        case "too few heads":
            write_tensors(path, {**tensors, "head.prompt.weight": torch.zeros(1, 16)}, json.dumps(record))
        case "no bias":
            del tensors["head.exchange.bias"]
            write_tensors(path, tensors, json.dumps(record))
        case _:
            write_tensors(path, {**tensors, f"{Q}.b": torch.full((16, 2), torch.nan)}, json.dumps(record))
    with pytest.raises(GuardError) as caught:
        Tuned.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=40)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_still_a_finite_head(at: float, value: int, tiny: Tuned, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("flip") / "value_head.safetensors"
    tiny.save(path)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] = value
    path.write_bytes(content)
    try:
        head = ValueHead(Tuned.load(path), tiny.record.backbone)
    except CharterError as error:
        assert "\n" not in str(error)
    else:
        assert all(np.isfinite(w).all() for w in head.weights.values())
