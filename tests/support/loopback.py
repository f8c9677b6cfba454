"""A real HTTP server on loopback in the place of a language model: a function answers what is posted."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, str], Any]]
"""A body to a status, headers, and text or what becomes JSON."""


@contextmanager
def loopback(answer: Answer) -> Iterator[str]:
    """Serve while the context lasts; yields the base URL, which ends in /v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, headers, value = answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may have given up
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def model(reply: Callable[[dict[str, Any]], tuple[str, str]]) -> Iterator[str]:
    """A chat model whose text and finish reason follow from the body of a request."""

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        return 200, {}, completion(*reply(body))

    with loopback(answer) as url:
        yield url


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    """A chat completion of one choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
