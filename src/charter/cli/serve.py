"""charter serve: a guarded, OpenAI-compatible endpoint in front of any other."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from charter.cli.point import Point


def command(
    guard: Annotated[Path, typer.Argument(help="A guard's folder, or the name of a shipped guard: general.")],
    upstream: Annotated[str, typer.Option(help="URL of an OpenAI-compatible endpoint (its /v1), or `embedded`.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8080,
    mode: Annotated[Literal["enforce", "shadow"], typer.Option(help="shadow records verdicts and blocks nothing.")] = "enforce",
    on_error: Annotated[
        Literal["closed", "open"], typer.Option(help="When scoring fails: withhold the text, or let it pass and count it.")
    ] = "closed",
    on_block: Annotated[
        Literal["content_filter", "error", "refusal"],
        typer.Option(help="What the client sees of a block: a content filter's finish reason, an error, or --refusal with that reason."),
    ] = "content_filter",
    refusal: Annotated[str, typer.Option(help="The words of --on-block refusal.")] = "I can't help with that.",
    lookahead: Annotated[int, typer.Option(min=0, max=1_024, help="Tokens scored beyond one before it leaves: later, but more whole.")] = 0,
    max_sessions: Annotated[
        int, typer.Option(min=1, help="Guard sessions open at once, and calls of LiteLLM's that are remembered.")
    ] = 128,
    max_body: Annotated[int, typer.Option(min=1_024, help="Largest request in bytes; larger ones get 413.")] = 1_048_576,
    keys: Annotated[
        Path | None, typer.Option(help="File of the keys that clients must send (`charter keys`); anybody may ask if left out.")
    ] = None,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at once; more of them get 503.")] = 2_048,
    tls_cert: Annotated[Path | None, typer.Option(help="Serve HTTPS: certificate and its chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM, without a passphrase.")] = None,
    point: Point = "quiet",
    precision: Annotated[
        Literal["float32", "float16"],
        typer.Option(
            help="Of the guard's weights: float16 scores words in less time as they come, on one thread, and moves scores by a hair."
        ),
    ] = "float32",
    probe: Annotated[
        Literal["own", "upstream"],
        typer.Option(help="upstream: read the embedded upstream's own activations while it generates; own: a pass of the guard's own."),
    ] = "own",
    refusal_tokens: Annotated[
        Path | None, typer.Option(help="Folder of `charter refusal-tokens`: the embedded upstream decides by their probability.")
    ] = None,
    refusal_threshold: Annotated[
        list[str] | None, typer.Option(help="Refuse from this probability on, such as 0.2; CLAUSE=0.05 for one clause; repeat.")
    ] = None,
    scorer: Annotated[
        Literal["here", "process"], typer.Option(help="Score in this process, or in one of its own that is started again when it dies.")
    ] = "here",
    shadow_guard: Annotated[Path | None, typer.Option(help="A second guard: judges the same traffic, never acts, is compared.")] = None,
    audit: Annotated[str, typer.Option(help="Audit log: an SQLite file, postgresql://HOST/NAME, or `none`.")] = "charter-audit.db",
    log_content: Annotated[bool, typer.Option("--log-content", help="Keep what was said in the audit log too.")] = False,
    retain_days: Annotated[float | None, typer.Option(help="Delete verdicts that are older; keep all if left out.")] = None,
    audit_spool: Annotated[
        Path | None, typer.Option(help="Folder for verdicts until the database has them; beside the SQLite file if left out.")
    ] = None,
    playground: Annotated[
        bool | None,
        typer.Option(help="A page at / to chat and to watch verdicts; on by default where --host is this machine's own address."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Processes that share the port. Each loads the guard, unless --scorer process: then all ask one."
        ),
    ] = 1,
    watch: Annotated[bool, typer.Option("--watch", help="Load the guard again when its folder changes (SIGHUP always does).")] = False,
    otel: Annotated[bool, typer.Option("--otel", help="Send OpenTelemetry spans; OTEL_EXPORTER_OTLP_ENDPOINT says where.")] = False,
) -> None:
    """Put a guard in front of a language model. The upstream's key is read from CHARTER_UPSTREAM_KEY."""
    from charter.errors import UpstreamError
    from charter.gateway.audit.log import open_log
    from charter.gateway.playground import is_loopback
    from charter.gateway.refusing import open_dial
    from charter.gateway.serve import Guards, run, run_workers
    from charter.gateway.settings import Settings
    from charter.gateway.spans import open_spans
    from charter.gateway.tls import tls_files
    from charter.gateway.watch import Watch
    from charter.guard.served import opener
    from charter.guard.shipped import place

    if probe == "upstream" and upstream != "embedded":
        raise UpstreamError("--probe upstream reads a model that runs in this process; give --upstream embedded, or leave --probe out")
    if probe == "upstream" and scorer == "process":
        raise UpstreamError("--probe upstream scores where the model answers, in this process; leave --scorer out")
    if refusal_tokens is not None and (upstream != "embedded" or probe == "upstream"):
        raise UpstreamError(
            "--refusal-tokens change the embedded upstream, in this process; give --upstream embedded, and leave --probe out"
        )
    if refusal_threshold and refusal_tokens is None:
        raise UpstreamError("--refusal-threshold is held against refusal tokens; name their folder with --refusal-tokens")
    if workers > 1 and upstream == "embedded":
        raise UpstreamError("--workers share no embedded upstream; give --upstream a URL, or leave --workers out")
    if workers > 1 and playground:
        raise UpstreamError("the page at / shows one process's verdicts; leave --workers out, or --playground")
    tls = tls_files(tls_cert, tls_key)
    dial = open_dial(refusal_tokens, refusal_threshold or ()) if refusal_tokens else None
    with ExitStack() as stack:
        first = opener(guard, point, lookahead, "upstream" if probe == "upstream" else scorer, stack, precision)
        second = opener(shadow_guard, point, 0, scorer, stack, precision) if shadow_guard else None

        def open_guards() -> Guards:
            return *first(), second()[0] if second else None

        loaded, reload, beside = (None, None, None) if workers > 1 else open_guards()
        if upstream == "embedded" and probe == "own" and dial is None:
            from charter.llm.embedded import embedded_server

            upstream = stack.enter_context(embedded_server())
        key = os.environ.get("CHARTER_UPSTREAM_KEY")
        settings = Settings(
            upstream, upstream_key=key, mode=mode, on_error=on_error, on_block=on_block, refusal=refusal,
            max_sessions=max_sessions, max_body_bytes=max_body, max_connections=max_connections, keys=keys,
            log_content=log_content and audit != "none",
            playground=workers == 1 and is_loopback(host) if playground is None else playground,
        )  # fmt: skip
        log = None if audit == "none" else partial(open_log, audit, retain_days, audit_spool)
        looked = Watch(place(guard) / "guard.json") if watch else None
        traced = open_spans if otel else None
        if loaded is None:
            run_workers(workers, open_guards, settings, host, port, log, traced, tls, looked, scorer == "process")
        else:
            run(loaded, settings, host, port, log, traced, tls, reload, beside, looked, dial)
