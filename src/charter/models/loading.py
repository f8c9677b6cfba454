"""Models out of folders or a hub. A folder from a stranger runs nothing: safetensors only, remote code refused outright."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch

from charter.errors import BackboneError

Kind = Literal["causal model", "causal model with its output head", "sentence encoder"]


def load(source: str, kind: Kind) -> tuple[Any, Any]:
    """Model, float32 and frozen, and tokenizer.

    Raises:
        BackboneError: there is no such folder or hub id, or it holds something else.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    if (Path(source) / "adapter_config.json").exists():
        # transformers would fetch and apply what that file names, by a library that a guard does not need.
        raise BackboneError(
            f"{source}: holds an adapter_config.json, so it is an adapter, not a model; merge it into its model and save that"
        )
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        # Remote code is refused outright: by default the user is asked.
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        auto = AutoModelForCausalLM if kind == "causal model with its output head" else AutoModel
        model = auto.from_pretrained(source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        where = "folder" if Path(source).exists() else "folder or reachable hub id"
        raise BackboneError(
            f"{source}: not a {where} that transformers loads as a {kind.removesuffix(' with its output head')} ({reason})"
        ) from error
    return model.eval().requires_grad_(False), tokenizer


def fingerprint(body: Any, deepest: int | None = None) -> str:
    """A hash of the shape and the first numbers of every tensor, up to a block: cheap, and enough to notice another model. 16 hex digits."""
    beyond = () if deepest is None else tuple(f"layers.{number}." for number in range(deepest, len(body.layers)))
    digest = hashlib.sha256()
    for name, tensor in body.state_dict().items():
        if name.startswith(beyond):
            continue
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten()[:256].numpy().tobytes())
    return digest.hexdigest()[:16]


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by instructions of its own: elsewhere it is several times slower than float32."""
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
