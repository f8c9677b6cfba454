"""`charter judge` against a server on loopback: a line an exchange, and what is no verdict is flagged and counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CHARTER = str(Path(sys.executable).with_name("charter"))


class Judge(BaseHTTPRequestHandler):
    """Flags talk of the cellar, and says nothing of use where asked about tea."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = body["messages"][-1]["content"]
        digits = re.findall("carry the number ([0-9a-f]{8})", asked)
        said = asked.rpartition("</user-message")[0]
        answer = '{"determination": "yes", "clause": "cellar"}' if "cellar" in said else '{"determination": "no", "clause": null}'
        text = "Nice weather." if "tea" in said or not digits else f"<verdict-{digits[0]}>{answer}</verdict-{digits[0]}>"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
        data = json.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def judge(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "CHARTER_CACHE": str(cwd / "cache")}
    return subprocess.run([CHARTER, "judge", *arguments], cwd=cwd, input=stdin, capture_output=True, text=True, timeout=120, env=env)


RULES = """
name: kitchen
version: 1.0.0
purpose: Keep the cook out of the cellar.
clauses:
  - {id: cellar, side: restricted, title: The cellar, text: Ways into the cellar., counterpart: wine, examples: [a]}
  - {id: wine, side: permitted, title: Wine, text: Wines and glasses., examples: [b]}
"""


def test_each_exchange_gets_a_line_and_no_verdict_is_flagged_and_counted(url: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    texts = ("Open the cellar.", "Which wine?", "More tea?")
    stdin = "".join(json.dumps({"id": text, "messages": [{"role": "user", "content": text}]}) + "\n" for text in texts)
    said = judge("rules.yaml", "--teacher", url, "--teacher-model", "m", cwd=tmp_path, stdin=stdin)
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [line["id"] for line in lines] == list(texts)
    assert [line["verdict"]["flagged"] for line in lines] == [True, False, True]
    assert [line["verdict"]["clause"] for line in lines] == ["cellar", None, None]
    assert [line["fault"] for line in lines] == [None, None, "not one verdict"]
    assert set(lines[0]["verdict"]) == {"flagged", "score", "clause", "position"}
    assert "flagged for want of a verdict: 1 (1 not one verdict)" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (("rules.yaml", "--teacher", "recorded"), "there is no language model 'recorded'"),
        (("rules.yaml", "--teacher", "http://127.0.0.1:9/v1"), "--teacher-model"),
        (("rules.yaml", "--teacher", "http://127.0.0.1:9/v1", "--teacher-model", "m"), "127.0.0.1:9"),
        (("missing.yaml", "--teacher", "http://127.0.0.1:9/v1", "--teacher-model", "m"), "charter init"),
    ],
)
def test_a_mistake_gets_a_sentence_and_exit_code_2(arguments: tuple[str, ...], mend: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    said = judge(*arguments, cwd=tmp_path)
    assert said.returncode == 2, said.stderr
    assert mend in said.stderr
    assert "Traceback" not in said.stderr
