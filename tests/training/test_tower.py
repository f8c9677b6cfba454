import shutil
from pathlib import Path

import pytest
import torch

from charter.errors import BackboneError
from charter.models.value_head import FinalBackbone, ValueHead
from charter.records import View
from charter.training.tower import Tower, unembedding

VIEWS: tuple[View, ...] = ("prompt", "exchange")
IDS = torch.tensor([[5, 60, 7, 9, 200, 41], [9, 9, 31, 2, 0, 0]])


def tower(folder: Path, blocks: int = 1, rank: int = 3) -> Tower:
    """A tower that learned something: every trained number moved at random."""
    made = Tower(FinalBackbone(str(folder)), blocks, rank, VIEWS, 3, seed=0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.trainable().values():
            parameter += 0.2 * torch.randn(parameter.shape, generator=rng)
        made.mean.copy_(torch.randn(made.mean.shape, generator=rng))
        made.scale.copy_(0.5 + torch.rand(made.scale.shape, generator=rng))
    return made


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("split", [False, True])
def test_what_is_exported_serves_what_was_trained(rank: int, split: bool, tiny_folder: Path) -> None:
    trained = tower(tiny_folder, rank=rank)
    if split:
        assert trained.try_split(IDS)
    with torch.no_grad():
        expected, _ = trained(trained.lower(IDS) if split else IDS, ("prompt", "exchange"))
    head = ValueHead(trained.export(("locks", "potions")))
    for number, view in enumerate(VIEWS):
        found = torch.from_numpy(head.batch([IDS[number].tolist()], view)[0])
        torch.testing.assert_close(found, expected[number], atol=2e-2, rtol=5e-3)  # the change is kept in float16


def test_before_training_the_tower_is_the_backbone(tiny_folder: Path) -> None:
    made = Tower(FinalBackbone(str(tiny_folder)), 1, 3, VIEWS, 3, seed=0)
    states = FinalBackbone(str(tiny_folder)).batch(IDS.tolist())[:, :, 0]
    logits, final = made(IDS, ("prompt", "prompt"))
    torch.testing.assert_close(final, states)
    assert (logits == 0).all()


def test_only_the_last_blocks_and_the_heads_get_a_gradient(tiny_folder: Path) -> None:
    made = tower(tiny_folder, rank=0)
    made(IDS, VIEWS)[0].sum().backward()
    moved = {name for name, p in made.named_parameters() if p.grad is not None}
    blocks = {int(name.split(".")[2]) for name in moved if name.startswith("model.")}
    assert blocks == {1}
    assert {"weight", "bias"} < moved


def test_adapters_hang_on_every_linear_map_of_attention_and_mlp(tiny_folder: Path) -> None:
    names = {name.split(".", 2)[2] for name in tower(tiny_folder).trainable() if name.endswith(".a")}
    assert names == {*(f"self_attn.{x}_proj.a" for x in "qkvo"), *(f"mlp.{x}_proj.a" for x in ("gate", "up", "down"))}


def test_the_same_seed_gives_the_same_adapters_and_leaves_the_random_state_alone(tiny_folder: Path) -> None:
    before = torch.random.get_rng_state()
    first, second = (Tower(FinalBackbone(str(tiny_folder)), 1, 3, VIEWS, 3, seed).trainable() for seed in (4, 4))
    other = Tower(FinalBackbone(str(tiny_folder)), 1, 3, VIEWS, 3, 5).trainable()
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "layers.1.mlp.up_proj.a"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def test_a_model_that_cannot_be_split_is_run_whole(tiny_folder: Path) -> None:
    """As one that scales its embeddings on the way in: running the upper blocks on given states would scale them again."""
    made = tower(tiny_folder)
    made.model.register_forward_pre_hook(
        lambda _m, _a, named: ((), {**named, "inputs_embeds": 4 * named["inputs_embeds"]}) if "inputs_embeds" in named else None,
        with_kwargs=True,
    )
    assert not made.try_split(IDS)
    assert len(made.model.layers) == 2
    assert made(IDS, VIEWS)[0].shape == (2, 6, 3)


def test_with_all_blocks_trained_nothing_is_below(tiny_folder: Path) -> None:
    assert not tower(tiny_folder, blocks=2).try_split(IDS)


@pytest.mark.parametrize("blocks", [0, 3])
def test_more_blocks_than_there_are_is_one_sentence(blocks: int, tiny_folder: Path) -> None:
    with pytest.raises(BackboneError, match="1 to 2 can be trained, not"):
        Tower(FinalBackbone(str(tiny_folder)), blocks, 3, VIEWS, 3, 0)


def test_the_unembedding_is_the_models_own_or_refused(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with pytest.raises(BackboneError, match="saved without its output head"):
        unembedding(FinalBackbone(str(tiny_folder)))
    for tied in (False, True):
        folder = shutil.copytree(tiny_folder, tmp_path / f"tied-{tied}")
        config = LlamaConfig.from_pretrained(folder, tie_word_embeddings=tied)
        model = LlamaForCausalLM(config).eval()
        model.save_pretrained(folder)
        backbone = FinalBackbone(str(folder))
        logits = backbone.batch(IDS.tolist())[:, :, 0] @ unembedding(backbone).T
        with torch.no_grad():
            torch.testing.assert_close(logits, model(IDS).logits, atol=1e-4, rtol=1e-3)
