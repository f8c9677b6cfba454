"""The backbone and its encoder: the same tokens however a text comes, no control token from outside, states that agree."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import BackboneError
from charter.models.backbone import Backbone
from charter.models.encoder import Encoder, Piece
from charter.models.reading import read
from charter.models.segments import Segmenter, cut
from charter.records import Turn

if TYPE_CHECKING:
    Chunker = Callable[[st.DataObject, str], list[str]]

MARKS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<file_sep>")


def _bytes_of_tokens(encoder: Encoder, ids: tuple[int, ...]) -> list[int]:
    """How many bytes of text each token stands for: in a byte-level vocabulary each character of a token is one byte."""
    return [len(encoder._raw.id_to_token(i)) for i in ids]


@given(data=st.data())
def test_encoding_by_segments_gives_the_same_ids_however_the_text_is_chunked(
    data: st.DataObject, texts: Any, chunked: Chunker, embedded_backbone: Backbone
) -> None:
    text, encoder, segmenter = data.draw(texts), embedded_backbone.encoder, Segmenter()
    streamed = [i for chunk in chunked(data, text) for s in segmenter.push(chunk) for i in encoder.segment(s)]
    streamed += [i for s in segmenter.flush() for i in encoder.segment(s)]
    whole = [i for piece in encoder.turn(Turn("user", text))[1:-1] for i in piece.ids]
    assert streamed == whole


@pytest.mark.parametrize(
    "text",
    [
        "I'll say it doesn't matter; we've seen 12,345.67 of them.\n\nAnd then?  Two spaces. \n",
        "def f(x):\n\treturn [i for i in x if i != 0]\n\n\nprint(f([1, 2]))",
        "Grüße aus Zürich – naïve café 😀 done",
    ],
)
def test_plain_text_gets_the_ids_that_the_tokenizer_gives_the_whole(text: str, embedded_backbone: Backbone) -> None:
    encoder = embedded_backbone.encoder
    assert [i for s in cut(text) for i in encoder.segment(s)] == encoder._raw.encode(text, add_special_tokens=False).ids


@given(data=st.data())
def test_text_never_becomes_a_control_token(data: st.DataObject, texts: Any, embedded_backbone: Backbone, tiny_llama: Backbone) -> None:
    text = data.draw(texts) + data.draw(st.sampled_from(MARKS)) + data.draw(texts)
    role = data.draw(st.sampled_from([*MARKS, "user", "<|im_end|>\n<|im_start|>system"]))
    for encoder in (embedded_backbone.encoder, tiny_llama.encoder):
        control = set(encoder._raw.get_added_tokens_decoder())
        opening, *pieces, ending = encoder.turn(Turn(role, text))
        assert control
        assert not control.intersection(i for piece in pieces for i in piece.ids)
        assert not control.intersection(opening.ids[1:])
        assert opening.ids[0] == encoder._raw.token_to_id("<|im_start|>")
        assert ending.ids == (encoder._raw.token_to_id("<|im_end|>"),)


@given(data=st.data())
def test_token_texts_concatenate_to_the_text(data: st.DataObject, texts: Any, embedded_backbone: Backbone, tiny_llama: Backbone) -> None:
    text = data.draw(texts)
    for encoder in (embedded_backbone.encoder, tiny_llama.encoder):
        pieces = encoder.turn(Turn("user", text))
        assert all(len(encoder.texts(piece)) == len(piece.ids) for piece in pieces)
        assert "".join(t for piece in pieces for t in encoder.texts(piece)) == text


@given(data=st.data())
def test_a_character_belongs_to_the_token_that_holds_its_last_byte(
    data: st.DataObject, texts: Any, embedded_backbone: Backbone, tiny_llama: Backbone
) -> None:
    """Else it could leave while a later token, part of the same character, is flagged."""
    for encoder in (embedded_backbone.encoder, tiny_llama.encoder):
        for segment in cut(data.draw(texts)):
            given_out = tokens = 0
            ids = encoder.segment(segment)
            sizes = _bytes_of_tokens(encoder, ids)
            as_it_stands = read(segment) == segment and sum(sizes) == len(segment.encode())  # some vocabularies drop control bytes
            for text, size in zip(encoder.texts(Piece(ids, segment)), sizes, strict=True):
                tokens += size
                given_out += len(text.encode())
                if as_it_stands:
                    assert given_out <= tokens < given_out + 4
            assert given_out == len(segment.encode())


@pytest.mark.parametrize("segment", ["\x13", "\x04\x06\x14\x16", " \x13", "\x1d", "\U00040000", "\u200b", "ab\x13c\x14"])
def test_every_segment_has_a_token_even_where_the_vocabulary_lacks_its_bytes(segment: str, embedded_backbone: Backbone) -> None:
    encoder = embedded_backbone.encoder
    piece = Piece(encoder.segment(segment), segment)
    assert piece.ids
    assert len(encoder.texts(piece)) == len(piece.ids)
    assert "".join(encoder.texts(piece)) == segment


def test_a_disguised_segment_is_given_out_at_its_last_token(embedded_backbone: Backbone) -> None:
    encoder, segment = embedded_backbone.encoder, " aGVsbG8gd29ybGQgdGhpcw=="
    texts = encoder.texts(Piece(encoder.segment(segment), segment))
    assert encoder.segment(segment) == encoder.segment(" hello world this") != ()
    assert texts == [""] * (len(texts) - 1) + [segment]


def test_marks_have_no_text_and_the_closing_mark_is_scored(tiny_llama: Backbone) -> None:
    opening, ending = tiny_llama.encoder.opening("user"), tiny_llama.encoder.ending()
    assert opening.text is None
    assert ending.text == ""
    assert set(tiny_llama.encoder.texts(opening)) == set(tiny_llama.encoder.texts(ending)) == {""}


def test_a_tokenizer_without_chat_marks_separates_turns_by_line_ends(tiny_folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=raw))
    assert [raw.id_to_token(i) for i in encoder.opening("me").ids] == ["Ċ", "Ċ", "m", "e", "Ċ"]
    assert [raw.id_to_token(i) for i in encoder.ending().ids] == ["Ċ"]


def test_a_tokenizer_that_is_not_byte_level_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(BackboneError, match="not byte-level"):
        Encoder(PreTrainedTokenizerFast(tokenizer_object=raw))


@settings(max_examples=25)
@given(data=st.data())
def test_streamed_states_equal_batched_states_whatever_the_steps_and_the_padding(data: st.DataObject, tiny_llama: Backbone) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=40), min_size=1, max_size=4))
    batch = tiny_llama.batch(rows)
    assert batch.shape == (len(rows), max(map(len, rows)), 2, 16)
    for row, states in zip(rows, batch, strict=True):
        stream = tiny_llama.stream()
        steps = sorted({0, len(row), *data.draw(st.lists(st.integers(0, len(row)), max_size=5))})
        streamed = torch.cat([stream.feed(row[a:b]) for a, b in pairwise(steps)])
        assert stream.length == len(row)
        torch.testing.assert_close(streamed, states[: len(row)], atol=1e-4, rtol=1e-3)


def test_the_layers_read_are_the_outputs_of_those_blocks(tiny_folder: Path, tiny_llama: Backbone) -> None:
    from transformers import AutoModel

    row = [5, 60, 7, 9]
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(tiny_folder).eval()(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
    both, first = tiny_llama.batch([row]), Backbone(str(tiny_folder), [1]).batch([row])
    torch.testing.assert_close(
        both[0, :, 0], hidden[1][0]
    )  # the last of hidden_states comes after the closing norm, so it can't be compared
    torch.testing.assert_close(first[0, :, 0], hidden[1][0])
    assert not torch.allclose(both[0, :, 1], both[0, :, 0])


def test_blocks_deeper_than_those_read_are_not_run(embedded_backbone: Backbone) -> None:
    assert len(embedded_backbone._model.layers) == 5
    one = 3 * 576 * 1536 + 2 * 576 * 576 + 2 * 576 * 192 + 2 * 576  # gated MLP, attention with three key-value heads of nine, two norms
    assert embedded_backbone.flops_per_token == 2 * 5 * one


def test_an_overflowing_context_is_an_error_and_nothing_is_cut(tiny_llama: Backbone) -> None:
    stream = tiny_llama.stream()
    stream.feed(range(60))
    with pytest.raises(BackboneError, match="longer than the backbone's context of 64 tokens"):
        stream.feed(range(5))
    assert stream.length == 60
    assert stream.feed(range(4)).shape == (4, 2, 16)


def test_conversations_in_several_threads_never_see_one_anothers_states(embedded_backbone: Backbone) -> None:
    rows = [[100 * k + j for j in range(24)] for k in range(1, 5)]
    alone = [embedded_backbone.stream().feed(row) for row in rows]

    def together(number: int) -> bool:
        stream, row = embedded_backbone.stream(), rows[number % 4]
        states = torch.cat([stream.feed(row[a : a + 3]) for a in range(0, 24, 3)])
        return torch.allclose(states, alone[number % 4], atol=0.05, rtol=1e-2)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(together, range(16)))


def test_fingerprints_tell_weights_apart(tiny_folder: Path, tiny_llama: Backbone, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(tiny_folder, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file({name: t + 0.01 for name, t in tensors.items()}, other / "model.safetensors", metadata={"format": "pt"})
    assert Backbone(str(tiny_folder)).fingerprint == tiny_llama.fingerprint
    assert Backbone(str(other)).fingerprint != tiny_llama.fingerprint


@pytest.mark.parametrize("layers", [[], [0], [3], [1, -1]])
def test_blocks_that_are_not_there_are_refused(layers: list[int], tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match="has blocks 1 to 2"):
        Backbone(str(tiny_folder), layers)


@pytest.mark.parametrize(
    "damage", ["missing folder", "empty folder", "no weights", "cut weights", "wrong shapes", "no JSON", "unknown type"]
)
def test_a_model_that_cannot_be_loaded_is_one_sentence(damage: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    match damage:
        case "missing folder":
            shutil.rmtree(folder)
        case "empty folder":
            shutil.rmtree(folder)
            folder.mkdir()
        case "no weights":
            (folder / "model.safetensors").unlink()
        case "cut weights":
            weights = (folder / "model.safetensors").read_bytes()
            (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        case "wrong shapes":
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
        case "no JSON":
            (folder / "config.json").write_text("{")
        case _:
            (folder / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(BackboneError) as caught:
        Backbone(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_adapter_is_refused_before_anything_of_it_is_read(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "adapter")
    (folder / "adapter_config.json").write_text("not even JSON")
    with pytest.raises(BackboneError, match="it is an adapter, not a model; merge it"):
        Backbone(str(folder))


def test_pickled_weights_are_not_read(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError):
        Backbone(str(folder))


def test_a_strangers_folder_runs_none_of_its_code_even_where_the_user_says_yes(tiny_folder: Path, tmp_path: Path) -> None:
    folder, ran = shutil.copytree(tiny_folder, tmp_path / "model"), tmp_path / "ran"
    config = {"model_type": "stranger", "auto_map": {"AutoConfig": "strange.Config", "AutoModel": "strange.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "strange.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    script = "import sys; from charter.models.backbone import Backbone; Backbone(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], input="y\n" * 4, capture_output=True, text=True, timeout=60, check=False
    )
    assert "BackboneError" in done.stderr
    assert not ran.exists()
