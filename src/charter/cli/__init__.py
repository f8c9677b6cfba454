"""The command line: one file a verb, no logic. A user's mistake is one sentence and exit code 2, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import typer

from charter.cli import (
    audit,
    build,
    calibrate,
    check,
    diff,
    evaluate,
    families,
    forecast,
    init,
    judge,
    keys,
    redteam,
    refusal_tokens,
    refusals,
    review,
    score,
    serve,
    synthesize,
    teach,
    train,
)
from charter.errors import CharterError

INTERRUPTED, UNREAD = 130, 141
app = typer.Typer(
    name="charter",
    help=(
        "From a constitution in plain language to a classifier that guards any language model token by token.\n\n"
        "constitution.yaml --synthesize--> examples.parquet --train--> guard/ --evaluate--> report.html, --serve--> an endpoint\n\n"
        "Start with: charter build general --out guard"
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    init,
    check,
    families,
    synthesize,
    review,
    train,
    build,
    evaluate,
    calibrate,
    score,
    serve,
    keys,
    audit,
    diff,
    judge,
    teach,
    redteam,
    refusals,
    refusal_tokens,
    forecast,
):
    app.command(name=verb.__name__.rpartition(".")[2].replace("_", "-"))(verb.command)


def main() -> None:
    """Run a command; exit codes: 0 done, 1 an answer of no, 2 a mistake that the user can mend, 130 interrupted, 141 nobody reads the output."""
    try:
        app()
    except CharterError as error:
        _stop(f"error: {error}", 2)
    except (KeyboardInterrupt, SystemExit) as ended:  # typer makes the second of the first, and of a broken pipe
        if isinstance(ended.__context__, BrokenPipeError):
            _unread()
        if isinstance(ended, SystemExit) and ended.code != INTERRUPTED:
            raise
        _stop("interrupted: nothing half-written is left; run the same command again to go on where it stopped", INTERRUPTED)
    except BrokenPipeError:
        _unread()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _stop("error: the disk is full; what was finished is kept: free some room and run the same command again", 2)
        if error.filename is None:
            raise
        _stop(f"error: {error.filename}: {error.strerror}", 2)


def _unread() -> NoReturn:
    """Nobody reads on, as in `charter families | head -1`: end quietly, with what a shell gives for a broken pipe."""
    void = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(void, stream)  # Python flushes both once more at the end
    sys.exit(UNREAD)


def _stop(sentence: str, code: int) -> None:
    typer.echo(sentence, err=True)
    sys.exit(code)
