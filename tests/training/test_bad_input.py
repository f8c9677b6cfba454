"""What training can't use is one sentence: where it is, and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gardens import TEXT, rows

from charter.constitution import parse
from charter.errors import BackboneError, DataError
from charter.models.backbone import Backbone
from charter.records import Exchange, Turn
from charter.training.activations import ActivationStore, Windows
from charter.training.hidden import fit_hidden
from charter.training.pieces import CONTEXT
from charter.training.probe import fit_probe
from charter.training.table import LEAST_A_SIDE, tables

GARDENS = parse(TEXT, "gardens.yaml")


def planted(broken: bool) -> tuple[Windows, np.ndarray]:
    store = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float16)
    if broken:
        store[7, 2] = np.nan
    return Windows(store, np.arange(40), np.arange(40)), (np.arange(40)[:, None] % 2).astype(np.float32)


def test_numbers_that_are_none_stop_a_fit_and_say_where() -> None:
    windows, labels = planted(broken=True)
    with pytest.raises(DataError, match=r"probe: the loss is not finite \(.* of 40 windows"):
        fit_probe(windows, labels, 0.1)
    with pytest.raises(DataError, match="hidden layer: the loss of step 1 of .* is not finite"):
        fit_hidden(windows, labels, np.arange(4), 0, 2)
    sound, labels = planted(broken=False)
    assert np.isfinite(fit_probe(sound, labels, 0.1)[0]).all()


def test_a_backbone_of_broken_weights_stops_at_the_first_pass(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "mlp" in name)
    save_file({**weights, name: weights[name] * torch.inf}, folder / "model.safetensors", {"format": "pt"})
    store = ActivationStore(tmp_path / "cache", Backbone(str(folder)))
    with pytest.raises(BackboneError, match="no finite numbers"):
        store.windows([Exchange("x", (Turn("user", "hello"),))], "prompt")
    assert next((tmp_path / "cache").glob("*/windows.f16")).stat().st_size == 0


@pytest.mark.parametrize("key", ["max_position_embeddings", "hidden_size"])
def test_a_model_whose_states_can_not_be_read_is_refused(key: str, tmp_path: Path, tiny_folder: Path) -> None:
    from transformers import AutoTokenizer, MambaConfig, MambaModel

    folder = tmp_path / "mamba"
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    MambaModel(MambaConfig(vocab_size=320, hidden_size=8, state_size=4, num_hidden_layers=1)).save_pretrained(folder)
    if key == "hidden_size":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2", "architectures": ["GPT2Model"]}))
    with pytest.raises(BackboneError) as caught:
        Backbone(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_is_not_byte_level_is_refused_with_its_model(tiny_folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = shutil.copytree(tiny_folder, tmp_path / "words")
    raw = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]").save_pretrained(folder)
    with pytest.raises(BackboneError, match="not byte-level"):
        Backbone(str(folder))


@pytest.mark.parametrize(("side", "left"), [(True, 0), (True, LEAST_A_SIDE - 1), (False, 0), (False, LEAST_A_SIDE - 1)])
def test_a_single_class_and_fewer_than_fifty_a_side_are_refused(side: bool, left: int) -> None:
    kept, count = [], 0
    for example in rows(GARDENS):
        wanted = example.split == "train" and example.reply_restricted is None and example.prompt_restricted == side
        count += wanted
        if not wanted or count <= left:
            kept.append(example)
    name = "restricted" if side else "harmless"
    with pytest.raises(DataError, match=f"only {left} {name} examples in the train split of the prompt view; at least 50"):
        tables(kept, GARDENS)


def test_long_exchanges_are_counted_and_nothing_of_them_is_cut(embedded_backbone: Backbone, tmp_path: Path) -> None:
    long, short = Exchange("long", (Turn("user", "the old lock " * 500),)), Exchange("short", (Turn("user", "the old lock"),))
    store = ActivationStore(tmp_path, embedded_backbone)
    found = store.windows([short, long, short], "prompt")
    assert found.long == 1
    tokens = sum(len(piece.ids) for piece in embedded_backbone.encoder.turn(long.turns[0]) if piece.text is not None)
    assert tokens > CONTEXT
    assert tokens // 16 <= (found.owner == 1).sum() <= tokens // 16 + 3
    again = ActivationStore(tmp_path, embedded_backbone).windows([long], "prompt")
    assert np.array_equal(again.take(slice(None)), found.take(np.flatnonzero(found.owner == 1)))
