"""Checks from outside, against servers that answer well, badly or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from device.engine.probing import judge_status, probe_address
from schemas.desired import HttpCheck, TcpCheck

HTTP = HttpCheck(type="http", port=8080, path="/health", timeout=0.3)


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve one answer to every request; None: none."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


@pytest.mark.parametrize(
    ("line", "passed", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n", True, "status 200"),
        (b"HTTP/1.0 302 Found\r\n", True, "status 302"),
        (b"HTTP/1.1 404\r\n", False, "status 404"),
        (b"HTTP/1.1 503 Service Unavailable\r\n", False, "status 503"),
        (b"", False, "the connection closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n", False, "not an HTTP answer: b'SSH-2.0-OpenSSH\\r\\n'"),
    ],
)
def test_a_status_line_is_judged(*, line: bytes, passed: bool, reason: str) -> None:
    answer = judge_status(line)

    assert (answer.passed, answer.reason) == (passed, reason)


async def test_an_http_probe_asks_for_the_checks_path() -> None:
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (port, asked):
        answer = await probe_address("127.0.0.1", port, HTTP)

    assert answer.passed
    assert asked[0].startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_silence_fails_within_the_checks_time() -> None:
    async with answering(None) as (port, _):
        answer = await probe_address("127.0.0.1", port, HTTP)

    assert (answer.passed, answer.reason) == (False, "no answer within 0.3 s")


async def test_an_endless_first_line_fails() -> None:
    async with answering(b"x" * 100_000) as (port, _):
        answer = await probe_address("127.0.0.1", port, HTTP)

    assert not answer.passed


async def test_a_closed_port_says_so() -> None:
    async with answering(b"") as (port, _):
        pass
    answer = await probe_address("127.0.0.1", port, TcpCheck(type="tcp", port=8080))

    assert (answer.passed, answer.reason) == (False, "connection to port 8080 refused")
