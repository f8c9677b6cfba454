from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["charter.llm.client", "charter.llm.embedded", "charter.llm.cache", "charter.synthesis.build", "charter.synthesis.opening"]
)
def test_the_teachers_side_never_imports_torch_nor_anything_slow(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'pyarrow', 'openai', 'datasketch', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
