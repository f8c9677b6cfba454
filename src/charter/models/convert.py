"""The embedded model as a backbone: converted once from GGUF to safetensors, in the user's cache.

transformers reads the GGUF in about 20 s and then refuses to save it ("quantized"), so the state dict is copied into a
fresh model; loading the copy takes 0.1 s. Without the package, the hub id is used, where there is a hub.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from charter.embedded import HUB_ID, cache_folder, gguf_file
from charter.errors import BackboneError

CONVERTED = "smollm2-135m-instruct-q4_1"


def embedded_folder() -> str:
    """A folder that transformers loads: converted on first use, in the user's cache. Falls back to the hub id.

    Raises:
        BackboneError: the model is there but can't be converted.
    """
    folder = cache_folder() / "models" / CONVERTED
    if (folder / "model.safetensors").is_file():
        return str(folder)
    try:
        source = gguf_file()
    except BackboneError:
        return HUB_ID
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        try:
            with redirect_stderr(StringIO()):  # the reader draws a bar that no setting turns off
                _convert(source, Path(aside))
        except Exception as error:  # the readers of GGUF fail in many ways
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackboneError(
                f"{source}: can't be converted ({reason}); check the free space in {folder.parent}, or install the model again"
            ) from error
        try:
            os.replace(aside, folder)
        except OSError:
            if not (folder / "model.safetensors").is_file():  # another process was not first: a real failure
                raise
        Path(aside).mkdir(exist_ok=True)  # for the context manager to remove
    return str(folder)


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    quantized = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config: Any = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = LlamaForCausalLM(config)
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)
