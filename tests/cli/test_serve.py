"""charter serve: what does not go together is one sentence, before anything is loaded."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from charter.cli.serve import command
from charter.errors import UpstreamError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--upstream", "embedded"], "--workers share no embedded upstream"),
        (["--upstream", "http://127.0.0.1:9/v1", "--playground"], "shows one process's verdicts"),
    ],
)
def test_what_several_workers_can_t_do_is_told(arguments: list[str], says: str) -> None:
    import typer

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, ["general", "--workers", "2", *arguments])
    assert isinstance(result.exception, UpstreamError)
    assert says in str(result.exception)
