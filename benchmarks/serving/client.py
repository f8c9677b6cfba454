"""Clients that cost little: what is measured is the server. HTTP/1.1 by hand over kept connections, and streams read event by event."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

PATH = "/v1/chat/completions"
DRAWS = 10_000


@dataclass
class Streamed:
    """What a client saw of one stream."""

    words: list[str]
    first_s: float | None
    """Until the first word; None where there was none."""
    seconds: float
    finish: str
    """The finish reason; "error" for an error frame; "" where the stream broke off without either."""


def body(model: str, stream: bool = False, **more: Any) -> bytes:
    """A chat request."""
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Tell me a story."}], **more}).encode()


async def stream(url: str, asked: bytes, leave_after: int | None = None) -> Streamed:
    """One streamed request on a connection of its own; `leave_after` so many words the client hangs up."""
    start, first, words, finish, part = time.perf_counter(), None, [], "", ""
    reader, writer = await _open(url)
    try:
        writer.write(_head(url, asked) + asked)
        async for line in _lines(reader):
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            finish = "error" if "error" in event else finish
            for choice in event.get("choices") or []:
                part += (choice.get("delta") or {}).get("content") or ""
                finish = choice.get("finish_reason") or finish
            if part.split() and first is None:
                first = time.perf_counter() - start
            if leave_after is not None and len(part.split()) >= leave_after:
                break
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
    words = part.split()
    return Streamed(words, first, time.perf_counter() - start, finish)


async def load(url: str, asked: bytes, at_once: int, seconds: float) -> tuple[int, list[float]]:
    """Requests that are not streamed, from so many kept connections; returns how many were not answered with 200, and seconds of the others."""
    until, times, failed = time.perf_counter() + seconds, list[float](), 0

    async def one() -> None:
        nonlocal failed
        reader, writer = await _open(url)
        head = _head(url, asked)
        while (start := time.perf_counter()) < until:
            writer.write(head + asked)
            if await _answer(reader) == 200:
                times.append(time.perf_counter() - start)
            else:
                failed += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(at_once)))
    return failed, times


async def sequential(urls: Sequence[tuple[str, bytes]], n: int, warm_up: int = 10) -> list[list[float]]:
    """Seconds of n requests to each of these, in turn, so that a busy machine slows all alike."""
    open_ = [await _open(url) for url, _ in urls]
    times: list[list[float]] = [[] for _ in urls]
    for number in range(n + warm_up):
        for (reader, writer), (url, asked), mine in zip(open_, urls, times, strict=True):
            start = time.perf_counter()
            writer.write(_head(url, asked) + asked)
            assert await _answer(reader) == 200, url
            if number >= warm_up:
                mine.append(time.perf_counter() - start)
    for _, writer in open_:
        writer.close()
    return times


def added_ms(with_: Sequence[float], without: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Difference of the medians in milliseconds, and its 95 % bootstrap interval."""
    rng, a, b = np.random.default_rng(seed), np.asarray(with_) * 1e3, np.asarray(without) * 1e3
    draws = [np.median(rng.choice(a, (500, len(a))), axis=1) - np.median(rng.choice(b, (500, len(b))), axis=1) for _ in range(DRAWS // 500)]
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975])
    return float(np.median(a) - np.median(b)), float(low), float(high)


async def _open(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=2**22)


def _head(url: str, asked: bytes) -> bytes:
    return (
        f"POST {PATH} HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\nauthorization: Bearer x\r\n"
        f"content-length: {len(asked)}\r\n\r\n"
    ).encode()


async def _answer(reader: asyncio.StreamReader) -> int:
    """Read one whole answer; returns its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    if b"content-length: " in head:
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
    else:
        while (size := int((await reader.readline()).split(b";")[0], 16)) or await reader.readline() != b"\r\n":
            await reader.readexactly(size + 2)
    return status


async def _lines(reader: asyncio.StreamReader):  # type: ignore[no-untyped-def]
    """The lines of a chunked or closed body; the sizes of chunks are lines that are no events, and are passed over."""
    left = ""
    while block := await reader.read(65_536):
        *lines, left = (left + block.decode()).split("\n")
        for line in lines:
            if line.strip() == "0":
                return
            yield line.rstrip("\r")
