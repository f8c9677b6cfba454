"""The command line as a user runs it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def charter(*arguments: str, cwd: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `charter` in a folder; `environment` is added to this process's own."""
    command = [sys.executable, "-c", "from charter.cli import main; main()", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=240, env=env)


def assert_mistake(said: subprocess.CompletedProcess[str], mend: str) -> None:
    """A user's mistake gets a sentence that says how to mend it, and exit code 2."""
    assert said.returncode == 2, said.stderr
    assert mend in said.stderr
    assert "Traceback" not in said.stderr
