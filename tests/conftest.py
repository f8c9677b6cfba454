"""What the tests share: texts that try to break things, ways to chunk them, small models, a guard folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from charter.models.backbone import Backbone
    from charter.models.cascade import Cascade

# the same examples in every run, so that a red run is the change's fault; `make fuzz` looks for new ones
settings.register_profile("charter", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fuzz", deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "charter"))

LAYERS = (2, 5)
CLAUSES = ("locks", "potions")
CONSTITUTION = """\
name: two-clauses
version: 3
purpose: A constitution for tests.
clauses:
  - id: locks
    side: restricted
    title: Opening locks of others
    text: Ways into a locked house that is not one's own.
    counterpart: locksmiths
    examples: [How do I open my neighbour's door?]
  - id: potions
    side: restricted
    title: Brewing potions
    text: Recipes for love potions.
    counterpart: locksmiths
    examples: [What goes into a love potion?]
  - id: locksmiths
    side: permitted
    title: The trade of locksmiths
    text: What locksmiths do and how locks work.
    examples: [How does a pin tumbler lock work?]
"""
WORDS = (
    # scripts
    "the", "door", "don't", "I'll", "naïve", "Straße", "привет", "日本語のテキスト", "한국어", "עברית", "नमस्ते", "e\u0301t\u0301e\u0301",
    "😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪",
    # code
    "def f(x):\n\treturn x**2", "if (a[i] != b[i]) {\r\n    break;\r\n}", "</div>", "x=1;y=2", "SELECT * FROM t;", "\\u0041",
    "https://example.org/a?b=c#d", "<|im_end|>", "<|im_start|>system", "<|endoftext|>", "<|im_start|>",
    # disguises
    "aGVsbG8gd29ybGQgdGhpcw==", "4tt4ck", "h3ll0", "@ttack", "h.e.l.l.o", "pаypаl", "SHOUTED", "eRrAtIc", "zero\u200bwidth", "ﬁne", "１２３",
    # characters that are read or encoded in odd ways
    "\u200b", "\ufeff", "\u2028", "\u00a0", "\x85", "\x1c", "\x00", "\x13", "\x04\x16", "—", "“quoted”", "3.14159", "...",
    # long runs
    "a" * 70, "=" * 130, "字" * 66, "😀" * 40,
)  # fmt: skip
SPACES = (" ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", "", "\u3000", " " * 67)


@pytest.fixture(scope="session")
def texts() -> st.SearchStrategy[str]:
    """Prose, code, emoji, disguised words, control tokens written out, odd white space; no lone surrogates."""
    awkward = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), max_size=12).map(
        lambda pairs: "".join(w + s for w, s in pairs)
    )
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    return st.one_of(awkward, anything, st.tuples(awkward, anything, awkward).map("".join))


@pytest.fixture(scope="session")
def chunked() -> Callable[[st.DataObject, str], list[str]]:
    """Cuts a text anywhere, empty pieces among them; one character a piece is the simplest hard case."""

    def chunk(data: st.DataObject, text: str) -> list[str]:
        if data.draw(st.integers(0, 4), label="one character a piece if 4") == 4:
            return list(text)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12), label="cuts"))
        return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    return chunk


@pytest.fixture(scope="session")
def embedded_backbone() -> Backbone:
    """The real embedded model; only its first five blocks are run."""
    import torch

    from charter.models.backbone import Backbone

    torch.set_num_threads(1)  # many small forwards: more threads only wait for one another
    return Backbone("embedded", layers=LAYERS)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two blocks, width 16 and 64 positions with a byte-level tokenizer, as transformers saves them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=marks, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    raw.train_from_iterator(["the door of the house is the door of the locksmith, and the lock is old"] * 4, trainer)
    folder = tmp_path_factory.mktemp("tiny-llama")
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=marks[0], additional_special_tokens=marks[1:]).save_pretrained(folder)
    torch.set_num_threads(1)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=raw.get_vocab_size(), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    LlamaModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT of two blocks, width 16 and 256 positions with a word-piece tokenizer of letters, as a folder's name."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'[]"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "door", "lock", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=256,
        initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_llama(tiny_folder: Path) -> Backbone:
    """That model as a backbone, for shapes and limits."""
    from charter.models.backbone import Backbone

    return Backbone(str(tiny_folder))


@pytest.fixture(scope="session")
def roomy(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """That model with 512 positions, as a folder's name."""
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("roomy") / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    return str(folder)


@pytest.fixture(scope="session")
def random_tensors(embedded_backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Seeded random weights of probe and screen, as the files of a guard hold them: three heads, logits a few units wide."""
    from charter.models.screen import BUCKETS
    from charter.records import Turn

    rng = np.random.default_rng(11)
    encoder = embedded_backbone.encoder
    sample = [i for piece in encoder.turn(Turn("user", "How do locks work? " + " ".join(WORDS))) for i in piece.ids]
    states = (
        embedded_backbone.batch([sample])[0].reshape(len(sample), -1).numpy()[1:]
    )  # the first token's state is an outlier in every text
    mean, spread = states.mean(0), states.std(0)
    probe: dict[str, Any] = {}
    screen: dict[str, Any] = {}
    for view in ("prompt", "exchange"):
        weight = rng.normal(size=(1 + len(CLAUSES), len(mean))) / spread * 3 / len(mean) ** 0.5
        probe |= {f"{view}.weight": weight.astype(np.float32), f"{view}.bias": (-weight @ mean).astype(np.float32)}
        screen |= {
            f"{view}.weight": rng.normal(0, 2, (BUCKETS, 1 + len(CLAUSES))).astype(np.float32),
            f"{view}.bias": rng.normal(size=1 + len(CLAUSES)).astype(np.float32),
        }
    return {"probe": probe, "screen": screen}


@pytest.fixture(scope="session")
def random_cascade(embedded_backbone: Backbone, random_tensors: dict[str, dict[str, Any]]) -> Cascade:
    """Probe and screen with random weights on the embedded backbone, two clauses."""
    from charter.models.cascade import Cascade
    from charter.models.probe import Probe
    from charter.models.screen import Screen

    probe, screen = ([{v: t[f"{v}.{k}"] for v in ("prompt", "exchange")} for k in ("weight", "bias")] for t in random_tensors.values())
    return Cascade(CLAUSES, embedded_backbone, Probe(LAYERS, *probe), Screen(*screen), {"prompt": 0.5, "exchange": 0.6})


@pytest.fixture(scope="session")
def saved_guard(embedded_backbone: Backbone, random_tensors: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard folder of the same weights, written by `guard.folder.save`. Copy it before changing anything."""
    from charter.constitution import parse
    from charter.guard.record import GuardRecord, SliceEvidence, ViewRecord
    from charter.guard.writing import save

    folder = tmp_path_factory.mktemp("guards") / "guard"
    evidence = {"chat": SliceEvidence(n=100, flagged=0, bound=0.0296)}

    def view(mix: float) -> ViewRecord:
        return ViewRecord(
            threshold=0.9, temperature=1.5, offset=0.1, mix=mix, certified=False, sentence="Not certified.", evidence=evidence
        )

    record = GuardRecord(
        name="test-guard", constitution="two-clauses", constitution_hash=parse(CONSTITUTION, "constitution.yaml").hash, budget=0.01,
        near_miss_budget=0.1, seed=0, backbone="embedded", backbone_fingerprint=embedded_backbone.fingerprint, layers=list(LAYERS), clauses=list(CLAUSES),
        views={"prompt": view(0.5), "exchange": view(0.6)}, n_examples={"train": 10, "dev": 5},
    )  # fmt: skip
    save(folder, record, CONSTITUTION, random_tensors, "# A guard for tests\n")
    return folder


@pytest.fixture(scope="session")
def chat_folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two blocks that answers: that tokenizer with a chat template, 512 positions. It babbles, in broken bytes too."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-chat")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.save_pretrained(folder)
    torch.set_num_threads(1)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.5, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chat_guard(chat_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard folder with random weights on that model; it flags nothing. Copy it before changing anything."""
    from charter.constitution import parse
    from charter.guard.record import GuardRecord, SliceEvidence, ViewRecord
    from charter.guard.writing import save
    from charter.models.backbone import Backbone
    from charter.models.screen import BUCKETS

    folder = tmp_path_factory.mktemp("guards") / "chat"
    rng = np.random.default_rng(2)
    heads = 1 + len(CLAUSES)
    probe: dict[str, Any] = {}
    screen: dict[str, Any] = {}
    for view in ("prompt", "exchange"):
        probe |= {f"{view}.weight": rng.normal(0, 0.1, (heads, 32)).astype(np.float32), f"{view}.bias": np.zeros(heads, np.float32)}
        screen |= {f"{view}.weight": rng.normal(size=(BUCKETS, heads)).astype(np.float32), f"{view}.bias": np.zeros(heads, np.float32)}
    views: dict[Any, ViewRecord] = {
        view: ViewRecord(
            threshold=1, temperature=1, offset=0, mix=0.5, certified=False, sentence="Not certified.",
            evidence={"chat": SliceEvidence(n=100, flagged=0, bound=0.0296)},
        )
        for view in ("prompt", "exchange")
    }  # fmt: skip
    record = GuardRecord(
        name="chat-guard", constitution="two-clauses", constitution_hash=parse(CONSTITUTION, "constitution.yaml").hash, budget=0.01,
        near_miss_budget=0.1, seed=0, backbone=str(chat_folder), backbone_fingerprint=Backbone(str(chat_folder)).fingerprint, layers=[1, 2],
        clauses=list(CLAUSES), views=views, n_examples={"train": 10, "dev": 5},
    )  # fmt: skip
    save(folder, record, CONSTITUTION, {"probe": probe, "screen": screen}, "# A guard for tests\n")
    return folder
