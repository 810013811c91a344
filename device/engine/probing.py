"""Health checks from outside a container: one connection, one answer, within the check's time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from device.engine.protocol import ProbeAnswer
from schemas.desired import HttpCheck, TcpCheck
from schemas.errors import shown

_FIRST_BAD_STATUS = 400
_LONGEST_LINE = 8192


async def probe_address(host: str, port: int, check: HttpCheck | TcpCheck) -> ProbeAnswer:
    """Carry out *check* against *host* and *port*; the port may differ from the check's where published."""
    try:
        async with asyncio.timeout(check.timeout):
            return await _ask(host, port, check)
    except TimeoutError:
        return ProbeAnswer(passed=False, reason=f"no answer within {check.timeout:g} s")
    except ConnectionRefusedError:
        return ProbeAnswer(passed=False, reason=f"connection to port {check.port} refused")
    except OSError as error:
        return ProbeAnswer(passed=False, reason=f"port {check.port}: {error.strerror or error}")


async def _ask(host: str, port: int, check: HttpCheck | TcpCheck) -> ProbeAnswer:
    reader, writer = await asyncio.open_connection(host, port, limit=_LONGEST_LINE)
    try:
        if isinstance(check, TcpCheck):
            return ProbeAnswer(passed=True, reason="connected")
        headers = f"Host: {host}:{port}\r\nUser-Agent: fleetline\r\nConnection: close"
        request = f"GET {check.path} HTTP/1.1\r\n{headers}\r\n\r\n"
        writer.write(request.encode("ascii"))
        await writer.drain()
        return judge_status(await _first_line(reader))
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        return b"more than a status line"


def judge_status(line: bytes) -> ProbeAnswer:
    """Return whether a status line (RFC 9112, section 4) says that all is well."""
    if not line:
        return ProbeAnswer(passed=False, reason="the connection closed without an answer")
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():  # noqa: PLR2004
        return ProbeAnswer(passed=False, reason=f"not an HTTP answer: {shown(line[:60])}")
    status = int(words[1])
    return ProbeAnswer(passed=status < _FIRST_BAD_STATUS, reason=f"status {status}")
