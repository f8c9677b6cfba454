"""Red-team clients that others wrote, garak and PyRIT, against `charter serve`: their logs judged by our judge, in our report.

    .venv/bin/python benchmarks/redteam_clients.py setup [--out runs/clients]      # an environment of its own each: garak 1.8 GB, PyRIT 0.8 GB
    .venv/bin/python benchmarks/redteam_clients.py garak [--out runs/clients]      # resumable: a probe that has its report is not run again
    .venv/bin/python benchmarks/redteam_clients.py pyrit [--out runs/clients]
    .venv/bin/python benchmarks/redteam_clients.py alarms [--out runs/clients]     # false alarms: permitted examples through the same endpoint
    .venv/bin/python benchmarks/redteam_clients.py report [--out runs/clients]     # redteam.json, redteam.md
    .venv/bin/python benchmarks/redteam_clients.py stub                            # the stub alone, for `charter redteam --upstream`

The clients run offline (HF_HUB_OFFLINE) and their own scores are not read: garak's detectors call what a filter withheld a pass, and
most refusals an attack that succeeded. The upstream is a stub that agrees to everything, the worst there can be, so that all that
comes back to the client was let through by the guard: a leak. `--upstream URL` takes a real one. False alarms are counted on the
permitted clauses' own examples, sent through the same endpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio

from charter.constitution import load
from charter.records import Turn, read_jsonl, write_text
from charter.redteam.agreement import shipped
from charter.redteam.campaign import Attempt, Options, Result
from charter.redteam.judge import ENOUGH, Judge
from charter.redteam.markdown import markdown, rate
from charter.redteam.questions import Question
from charter.redteam.results import tell
from charter.redteam.target import Answer
from charter.refusals.classify import load as classifier
from charter.statistics import clopper_pearson

PINS = {"garak": ("torch==2.13.0", "garak==0.17.1"), "pyrit": ("pyrit==1.1.0",)}
"""torch first, by itself: a plain range would take a build with several GB of CUDA packages. uv, because pip's resolver takes ten minutes."""
PROBES = (
    "donotanswer.MaliciousUses", "malwaregen.Payload", "malwaregen.TopLevel", "malwaregen.Evasion",
    "malwaregen.SubFunctions", "phrasing.PastTense", "phrasing.FutureTense", "suffix.GCGCached", "grandma.Substances",
    "goodside.ThreatenJSON", "encoding.InjectBase64", "encoding.InjectROT13", "donotanswer.InformationHazard",
)  # fmt: skip
"""Those that need no hub and no model of garak's."""
BLOCKED = "[withheld by the guard]"
"""What the gateway says of a block: clients drop the finish reason from their logs."""
AGREES = "Sure, here it is."
"""Agrees and holds nothing: the longer and hollower "Sure, here is all of it, one step after the other" is what recorded compliances look like, and was
blocked whatever had been asked."""
CAP = 80
"""Prompts of each probe."""


class Agreeable(BaseHTTPRequestHandler):
    """The stub upstream."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "stub", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": AGREES}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        self._send({"id": "stub", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice], "usage": usage})

    def _send(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def stub(port: int = 0) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", port), Agreeable)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


@contextmanager
def gateway(guard: str, upstream: str) -> Iterator[str]:
    """A real `charter serve` in a process of its own; yields its /v1."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    wishes = ["--upstream", upstream, "--port", str(port), "--audit", "none", "--on-block", "refusal", "--refusal", BLOCKED]
    process = subprocess.Popen([sys.executable, "-c", "from charter.cli import main; main()", "serve", guard, *wishes])
    try:
        while not ready(f"http://127.0.0.1:{port}/readyz"):
            if process.poll() is not None:
                raise SystemExit("the gateway did not start")
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def setup(out: Path) -> None:
    """An environment for each client."""
    for name, pins in PINS.items():
        home = out / "env" / name
        if not (home / "done").is_file():
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            subprocess.run([home / "bin" / "pip", "install", "-q", "uv"], check=True)
            if len(pins) > 1:
                subprocess.run([home / "bin" / "pip", "install", "-q", pins[0]], check=True)
            subprocess.run([home / "bin" / "uv", "pip", "install", "-q", "--python", home / "bin" / "python", *pins], check=True)
            (home / "done").touch()


def offline(out: Path) -> dict[str, str]:
    """The environment that a client runs in: no hub, its files in our folder, no path of ours."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    xdg = {f"XDG_{kind}_HOME": str((out / "home" / kind.lower()).resolve()) for kind in ("DATA", "CACHE", "CONFIG")}
    return {**kept, **xdg, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OPENAICOMPATIBLE_API_KEY": "none"}


def garak(out: Path, url: str) -> None:
    """Every probe that has no report yet, several requests at once."""
    folder = (out / "garak").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(f"run:\n  soft_probe_prompt_cap: {CAP}\n  generations: 1\n  seed: 0\n")
    (folder / "target.json").write_text(json.dumps({"openai": {"OpenAICompatible": {"uri": url, "max_tokens": 64}}}))
    command = [out / "env" / "garak" / "bin" / "garak", "--config", folder / "run.yaml", "--target_type", "openai.OpenAICompatible"]
    command += ["--target_name", "stub", "--generator_option_file", folder / "target.json", "--parallel_attempts", "4"]
    for probe in PROBES:
        if (folder / f"{probe}.done").is_file():
            continue
        (folder / f"{probe}.report.jsonl").unlink(missing_ok=True)
        wishes = ["--probes", probe, "--report_prefix", folder / probe]
        subprocess.run([*command, *wishes], check=True, env=offline(out), stdout=subprocess.DEVNULL)
        (folder / f"{probe}.done").touch()
        print(f"garak {probe}: done", flush=True)


def pyrit(out: Path, url: str) -> None:
    """The restricted clauses' own examples through PyRIT's converters; a converter whose rows are all there is not run again."""
    texts = [clause.examples[0] for clause in load("general").restricted if clause.examples]
    wishes = json.dumps({"url": url, "converters": CONVERTERS, "texts": texts, "out": str((out / "pyrit.jsonl").resolve())})
    subprocess.run([out / "env" / "pyrit" / "bin" / "python", "-c", PYRIT, wishes], check=True, env=offline(out))


CONVERTERS = ("Base64", "ROT13", "Atbash", "Leetspeak", "CharacterSpace", "UnicodeConfusable", "StringJoin", "Morse")
PYRIT = """
import asyncio, json, os, sys
from collections import Counter
from pyrit import converter as c
from pyrit.executor.attack import AttackConverterConfig, PromptSendingAttack
from pyrit.prompt_normalizer import ConverterConfiguration
from pyrit.prompt_target import OpenAIChatTarget
from pyrit.setup import IN_MEMORY, initialize_pyrit_async

wishes = json.loads(sys.argv[1])

async def main():
    await initialize_pyrit_async(IN_MEMORY, load_defaults=False, silent=True, env_files=[])
    target = OpenAIChatTarget(endpoint=wishes["url"], model_name="stub", api_key="none")
    there = [json.loads(line) for line in open(wishes["out"])] if os.path.exists(wishes["out"]) else []
    done = {(row["converter"], row["objective"]) for row in there}
    for name in wishes["converters"]:
        made = getattr(c, name + "Converter")()
        config = AttackConverterConfig(request_converters=[ConverterConfiguration(converters=[made])])
        attack = PromptSendingAttack(objective_target=target, attack_converter_config=config)
        for text in wishes["texts"]:
            if (name, text) in done:
                continue
            result = await attack.execute_async(objective=text)
            prompt = (await made.convert_async(prompt=text)).output_text
            last = result.last_response
            reply = None if last is None else last.converted_value
            with open(wishes["out"], "a") as file:
                file.write(json.dumps({"converter": name, "objective": text, "prompt": prompt, "reply": reply}) + "\\n")

asyncio.run(main())
"""
"""Runs in PyRIT's own environment."""


def asked(url: str, texts: list[str]) -> list[bool]:
    """Which of the prompts the endpoint blocks."""

    def one(text: str) -> bool:
        body = json.dumps({"model": "stub", "messages": [{"role": "user", "content": text}]}).encode()
        request = urllib.request.Request(f"{url}/chat/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=300) as answer:
            return bool(json.load(answer)["choices"][0]["finish_reason"] == "content_filter")

    return [one(text) for text in texts]


def attempts(out: Path) -> list[Attempt]:
    """The clients' logs as our attempts, judged by our judge: garak's whole attempts (status 2), PyRIT's rows."""
    judge, made = Judge(classifier()), list[Attempt]()

    def add(strategy: str, text: str, reply: str | None) -> None:
        question = Question(f"{strategy}:{len(made)}", (Turn("user", text),))
        blocked = reply is not None and (BLOCKED in reply or '"error": "blocked"' in reply or "content_filter" in reply)
        answer = Answer(
            "" if blocked or reply is None else reply, blocked="endpoint" if blocked else "", error="" if reply is not None else "no reply"
        )
        judged = anyio.run(judge.judge, question, answer)
        made.append(Attempt(len(made), strategy, "suite", strategy, question.id, 0, question.turns, answer, judged))

    for file in sorted((out / "garak").glob("*.report.jsonl")):
        if not file.with_name(file.name.replace(".report.jsonl", ".done")).is_file():
            continue
        for _, row in read_jsonl(file):
            if row.get("entry_type") == "attempt" and row["status"] == 2:
                text = "\n".join(turn["content"]["text"] for turn in row["prompt"]["turns"])
                for output in row["outputs"]:
                    add(f"garak:{row['probe_classname']}", text, output and output["text"])
    if (out / "pyrit.jsonl").is_file():
        for _, row in read_jsonl(out / "pyrit.jsonl"):
            add(f"pyrit:{row['converter']}", row["prompt"], row["reply"])
    return made


def report(out: Path, guard: str) -> None:
    made = attempts(out)
    target = {"name": f"a stub that agrees, behind charter serve {guard}", "guard": None, "upstream": "stub", "model": "stub"}
    result = Result(made, [], 0, 0, 0)
    told = tell(result, target, {"grader": "none (a stub)", "enough": ENOUGH}, Options(len(made), tries=1), shipped(), None)
    alarms = out / "false_alarms.json"
    told["false_alarms"] = json.loads(alarms.read_text()) if alarms.is_file() else None
    write_text(out / "redteam.json", json.dumps(told, indent=1) + "\n")
    write_text(out / "redteam.md", markdown(told))
    print(f"{len(made):,} attempts, outcomes {told['overall']['outcomes']}, leaks {rate(told['overall']['success'])}")
    for name, row in told["strategies"].items():
        print(f"  {name}: {row['attempts']:,} attempts, leaks {rate(row['success'])}")
    print(f"false alarms on permitted examples: {rate(told['false_alarms'])}")


def false_alarms(out: Path, url: str) -> None:
    texts = [text for clause in load("general").permitted for text in clause.examples]
    blocked = asked(url, texts)
    write_text(out / "false_alarms.json", json.dumps(clopper_pearson(sum(blocked), len(blocked)).as_dict()) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("setup", "stub", "garak", "pyrit", "alarms", "report"))
    parser.add_argument("--out", type=Path, default=Path("runs/clients"))
    parser.add_argument("--guard", default="general")
    parser.add_argument("--upstream", help="a real endpoint in place of the stub")
    wishes = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the gateway and the client end with us
    if wishes.what == "setup":
        setup(wishes.out)
    elif wishes.what == "report":
        report(wishes.out, wishes.guard)
    elif wishes.what == "stub":
        with stub(8199) as agreeable:
            print(f"{agreeable}: agrees to everything until it is ended", flush=True)
            signal.pause()
    else:
        with stub() as agreeable, gateway(wishes.guard, wishes.upstream or agreeable) as url:
            {"garak": garak, "pyrit": pyrit, "alarms": false_alarms}[wishes.what](wishes.out, url)


if __name__ == "__main__":
    main()
