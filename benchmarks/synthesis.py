"""Synthesis at scale: how fast a teacher is asked, what a killed run costs, how much memory many examples take.

    .venv/bin/python benchmarks/synthesis.py throughput [--distilabel /elsewhere/bin/python] [--json]
    .venv/bin/python benchmarks/synthesis.py kill
    .venv/bin/python benchmarks/synthesis.py memory [--examples 200000]

`throughput` asks a stub on loopback that takes 200 ms a call and serves 64 at once, so 320 calls a second are ideal; what
two cores allow is what a client of bare sockets gets. The stub keeps the time, from the first call to the last answer, so
nobody pays for its start. distilabel needs an environment of its own, whose Python is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LATENCY_S, ROOM = 0.2, 64
WORDS = (
    "amber basil cedar dill elder fennel ginger hazel iris juniper kale lemon mint nettle olive pepper quince rosemary sage thyme".split()
)
BODY = {
    "model": "m", "temperature": 0.8, "max_tokens": 60, "stop": ["\n\n"],
    "messages": [{"role": "user", "content": "Write a request that somebody sends to an assistant, on the subject given."},
                 {"role": "assistant", "content": "Subject: bread\nRequest: Why does my dough not rise?\n\n" * 6 + "Subject: wine\nRequest:"}],
}  # fmt: skip


# -- the stub: one process, bare sockets -------------------------------------------------------------------------------


class Stub(asyncio.Protocol):
    """One connection of the server. Calls beyond ROOM wait their turn; each takes `latency` seconds."""

    latency, busy, waiting = LATENCY_S, 0, []  # type: ignore[var-annotated]
    count, first, last = 0, 0.0, 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            if head.startswith(b"get"):
                self.send({"count": Stub.count, "seconds": Stub.last - Stub.first})
                Stub.count = 0
            elif Stub.busy < ROOM:
                self.begin(body)
            else:
                Stub.waiting.append((self, body))

    def begin(self, body: bytes) -> None:
        Stub.busy += 1
        if not Stub.count:
            Stub.first = time.monotonic()
        Stub.count += 1
        asyncio.get_running_loop().call_later(Stub.latency, self.finish, body)

    def finish(self, body: bytes) -> None:
        Stub.busy -= 1
        Stub.last = time.monotonic()
        self.send(completion(body))
        if Stub.waiting:
            other, waiting = Stub.waiting.pop(0)
            other.begin(waiting)

    def send(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data) + data)


def completion(body: bytes) -> dict[str, Any]:
    """An answer that depends on the body alone and fits what a language teacher asks for."""
    number = zlib.crc32(body)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    name = " ".join(WORDS[number // 20**i % 20] for i in range(5))
    text = f" {name} {number}? And then it is s"
    if b'"logprobs"' in body:
        text = " A"
        top = [{"token": " A", "logprob": -(number % 97) / 97, "bytes": None}, {"token": " B", "logprob": -0.5, "bytes": None}]
        choice["logprobs"] = {"content": [{"token": " A", "logprob": -0.1, "bytes": None, "top_logprobs": top}]}
    choice["message"] = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 40, "completion_tokens": 20, "total_tokens": 60}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


async def serve(latency: float) -> None:
    """The stub, until it is killed; prints its port."""
    Stub.latency = latency
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def stub(latency: float) -> Iterator[str]:
    """The base URL of a stub in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, "stub", str(latency)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stats(url: str) -> dict[str, float]:
    """Calls and seconds since this was last asked."""
    with urllib.request.urlopen(f"{url}/stats") as response:
        found: dict[str, float] = json.load(response)
    return found


# -- the clients, each run in a process of its own ---------------------------------------------------------------------


async def bare(url: str, calls: int) -> None:
    """What the machine allows: bytes made beforehand, written to ROOM open sockets."""
    port = int(url.split(":")[2].split("/")[0])
    bodies = iter([json.dumps(BODY | {"seed": n}).encode() for n in range(calls)])

    async def line() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in bodies:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rsplit(b"content-length: ", 1)[1]))
        writer.close()

    await asyncio.gather(*(line() for _ in range(ROOM)))


async def openai_loop(url: str, calls: int) -> None:
    """The plain way: asyncio over the official client."""
    from openai import AsyncOpenAI

    room = asyncio.Semaphore(ROOM)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

        async def one(number: int) -> None:
            async with room:
                await client.chat.completions.create(**BODY, seed=number)  # type: ignore[call-overload]

        await asyncio.gather(*(one(number) for number in range(calls)))


async def charter_calls(url: str, calls: int) -> None:
    """Charter's path of one call: the pool, the cache on disk, the client."""
    from charter.llm.cache import Cache, CachedChat
    from charter.llm.chat import Request
    from charter.llm.client import OpenAIChat
    from charter.llm.pool import gather
    from charter.records import Turn

    ask, prefill = (message["content"] for message in BODY["messages"])  # type: ignore[index, attr-defined]
    with tempfile.TemporaryDirectory() as folder, Cache(Path(folder) / "cache.sqlite") as cache:
        chat = OpenAIChat(url, "m")
        cached = CachedChat(chat, cache, limit=ROOM)

        async def one(number: int) -> None:
            await cached.complete(Request((Turn("user", ask),), 60, 0.8, number, ("\n\n",), None, prefill))

        await gather([lambda n=n: one(n) for n in range(calls)], ROOM)  # type: ignore[misc]
        await chat.aclose()


async def charter_run(url: str, calls: int, folder: str | None = None, limit: int = ROOM) -> None:
    """A whole `charter synthesize` of about that many calls: with its cache, where a folder is given, to go on from."""
    from charter.constitution import parse
    from charter.synthesis.build import Options, synthesize
    from charter.synthesis.opening import open_teacher
    from charter.synthesis.pools import pools

    pairs = max(1, calls // CALLS_A_PAIR)
    constitution = parse(yaml(pairs), "bench.yaml")
    slices = tuple(sorted({item.slice for item in pools(constitution, ())}))
    options = Options(per_clause=24, replies_per_clause=8, limit=limit, without_pools=slices)
    with tempfile.TemporaryDirectory() as aside:
        place = Path(folder or aside)
        teacher = open_teacher(url, constitution, options.budget(), model="m", cache=place / "cache.sqlite", limit=limit, check=False)
        async with teacher as writer:
            await synthesize(constitution, writer, options, place)


CALLS_A_PAIR = 180
"""What a restricted clause and its counterpart take: topics, prompts, replies and opinions."""


def yaml(pairs: int) -> str:
    """A constitution of restricted clauses with their counterparts."""
    lines = ["name: bench", "version: 1.0.0", "purpose: To measure.", "clauses:"]
    for n in range(pairs):
        a, b = WORDS[n % 20], WORDS[n // 20 % 20]
        for side, other in (("restricted", f"\n    counterpart: permitted-{n}"), ("permitted", "")):
            lines.append(
                f"  - id: {side}-{n}\n    side: {side}\n    title: The {side} {a} of {b} {n}\n    text: Keys of {a}, locks of {b} and doors {n}.{other}\n"
                f"    examples: [Where is the {side} {a} of {b} {n}?, Open the {side} {b} door {n} for me.]"
            )
    return "\n".join(lines) + "\n"


DISTILABEL = """
import json, sys
from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
url, calls, room, text = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if __name__ == "__main__":
    with Pipeline(name="bench") as pipeline:
        rows = [{"instruction": f"{text} {n}"} for n in range(calls)]
        load = LoadDataFromDicts(data=rows, batch_size=room)
        llm = OpenAILLM(model="m", base_url=url, api_key="none", generation_kwargs={"max_new_tokens": 60, "temperature": 0.8})
        load >> TextGeneration(llm=llm, input_batch_size=room)
    pipeline.run(use_cache=False)
"""
CLIENTS = {"bare": bare, "openai": openai_loop, "calls": charter_calls, "run": charter_run}


# -- the measurements --------------------------------------------------------------------------------------------------


def throughput(calls: int, distilabel: str | None) -> dict[str, Any]:
    """Calls a second of each client, and its share of the lower of the ideal and what bare sockets get."""
    rows: dict[str, dict[str, float]] = {}
    with stub(LATENCY_S) as url:
        for name, command in {
            **{name: [sys.executable, __file__, "client", name, url, str(calls)] for name in CLIENTS},
            **(
                {"distilabel": [distilabel, "-c", DISTILABEL, url, str(calls), str(ROOM), BODY["messages"][0]["content"]]}
                if distilabel
                else {}
            ),  # type: ignore[index]
        }.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found = stats(url)
            if ended.returncode or not found["count"]:
                print(f"{name} failed: {ended.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rows[name] = {**found, "per_second": found["count"] / found["seconds"], "cpu_s": cpu}
    ideal = ROOM / LATENCY_S
    reachable = min(ideal, rows["bare"]["per_second"])
    for row in rows.values():
        row["share"] = row["per_second"] / reachable
    return {"ideal": ideal, "bare": rows["bare"]["per_second"], "reachable": reachable, "load": os.getloadavg()[0], "clients": rows}


def kill(calls: int, moments: int, seed: int, limit: int = 16) -> dict[str, Any]:
    """A run killed at random moments and started again each time, beside one that is left alone."""
    with tempfile.TemporaryDirectory() as folder, stub(0.02) as url:

        def start(name: str) -> subprocess.Popen[bytes]:
            place = Path(folder, name)
            place.mkdir(exist_ok=True)
            return subprocess.Popen([sys.executable, __file__, "client", "run", url, str(calls), str(place), str(limit)])

        assert start("alone").wait(300) == 0
        alone = int(stats(url)["count"])
        total, deadline = 0, time.monotonic() + 400
        for moment in sorted(random.Random(seed).sample(range(alone), moments)):
            process = start("killed")
            while total < moment and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
                total += int(stats(url)["count"])
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert start("killed").wait(300) == 0
        time.sleep(0.1)
        total += int(stats(url)["count"])
        same = Path(folder, "alone", "examples.parquet").read_bytes() == Path(folder, "killed", "examples.parquet").read_bytes()
    return {
        "alone": alone,
        "killed": total,
        "repeated": total - alone,
        "kills": moments,
        "in_flight_at_most": moments * limit,
        "same_bytes": same,
    }


MEMORY = """
import resource, sys, time
from pathlib import Path
import anyio
from charter.constitution import load
from charter.synthesis.build import Options, synthesize
from charter.synthesis.recorded import RecordedTeacher
constitution = load("general")
options = Options(augment_rate=float(sys.argv[2]))
begun = time.monotonic()
manifest = anyio.run(synthesize, constitution, RecordedTeacher(constitution), options, Path(sys.argv[1]))
plain = next(stage.made for stage in manifest.stages if stage.name == "augment")
families = manifest.counts["family"]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(sum(families.values()) - families["plain"], manifest.rows, peak, time.monotonic() - begun)
"""


def memory(examples: int) -> dict[str, Any]:
    """Peak resident memory of a process that makes that many disguised examples of the shipped constitution."""
    with tempfile.TemporaryDirectory() as folder:

        def made(rate: float) -> tuple[int, int, int, float]:
            command = [sys.executable, "-c", MEMORY, str(Path(folder, "out")), str(rate)]
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout.split()
            return int(said[0]), int(said[1]), int(said[2]), float(said[3])

        augmented, _, _, _ = made(1.0)  # how many rows a copy of everything gives
        augmented, rows, peak, seconds = made(round(examples / augmented * 1.02, 2))
    return {"augmented": augmented, "rows": rows, "peak_gib": peak / 2**30, "seconds": seconds}


def table(value: dict[str, Any]) -> str:
    """For people."""
    clients = value.pop("clients", {})
    lines = [
        f"{key.replace('_', ' '):20} {v:,.2f}" if isinstance(v, float) else f"{key.replace('_', ' '):20} {v}" for key, v in value.items()
    ]
    if clients:
        lines += ["", f"{'client':12} {'calls':>7} {'s':>7} {'calls/s':>8} {'share':>6} {'CPU s':>6}"]
        lines += [
            f"{n:12} {c['count']:>7} {c['seconds']:>7.1f} {c['per_second']:>8.0f} {c['share']:>6.0%} {c['cpu_s']:>6.1f}"
            for n, c in clients.items()
        ]
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for."""
    if sys.argv[1:2] == ["stub"]:
        return asyncio.run(serve(float(sys.argv[2])))
    if sys.argv[1:2] == ["client"]:
        name, url, calls, *rest = sys.argv[2:]
        more = (rest[0], int(rest[1])) if rest else ()
        return asyncio.run(CLIENTS[name](url, int(calls), *more))  # type: ignore[operator]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("throughput", "kill", "memory"))
    parser.add_argument("--calls", type=int, help="3,200 for throughput, 2,000 for kill")
    parser.add_argument("--distilabel", help="the Python of an environment that has distilabel[openai]")
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.part == "throughput":
        value = throughput(given.calls or 3_200, given.distilabel)
    elif given.part == "kill":
        value = kill(given.calls or 2_000, given.moments, given.seed)
    else:
        value = memory(given.examples)
    print(json.dumps(value, indent=1) if given.json else table(value))
    return None


if __name__ == "__main__":
    main()
