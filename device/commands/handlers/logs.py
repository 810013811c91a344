"""A service's log: its last lines in the answer, or followed in chunks until somebody has had enough."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from uuid import UUID

from device.commands.tools import Answer, Tools, find
from device.link import LinkDown
from schemas import topics
from schemas.base import to_wire
from schemas.commands import MAX_INLINE, LogChunk, Logs
from schemas.errors import FleetError

CHUNK_SECONDS = 0.25
CHUNK_LINES = 100
MOST_LINES = 100_000
"""Lines one followed log may send; then it ends and says so."""
_BUFFER = 1000
_LONGEST_LINE = 16_000
"""Characters of one line; the rest is cut, and the cut is shown."""


@dataclass(frozen=True, slots=True)
class _End:
    """Why the lines ended, and whether that is a failure."""

    why: str
    error: FleetError | None = None


async def tail(wanted: Logs, tools: Tools) -> Answer:
    """Return the last lines, the newest that fit. Raises `FleetError`."""
    container = await find(wanted.service, tools.engine)
    found = await tools.engine.logs(container.id, tail=wanted.tail, since=wanted.since)
    lines = newest(found, limit=MAX_INLINE)
    truncated = len(lines) < len(found)
    said = f"{len(lines)} lines" + (
        f", {len(found) - len(lines)} older ones did not fit" if truncated else ""
    )
    return Answer(said, {"lines": lines, "truncated": truncated})


async def follow(wanted: Logs, transfer: UUID, enough: asyncio.Event, tools: Tools) -> Answer:
    """Send lines on `up/chunk/{transfer}` until the container ends or *enough* is set; return how many.

    Lines for which there is no connection are counted and lost.
    """
    container = await find(wanted.service, tools.engine)
    lines: asyncio.Queue[str | _End] = asyncio.Queue(maxsize=_BUFFER)
    sender = _Sender(transfer, tools)
    async with asyncio.TaskGroup() as group:
        source = tools.engine.follow(container.id, tail=wanted.tail, since=wanted.since)
        reader = group.create_task(_read(source, lines))
        watcher = group.create_task(_watch(enough, lines))
        end = await sender.send_all(lines)
        reader.cancel()
        watcher.cancel()
    if end.error is not None:
        raise end.error
    data = {"lines": sender.sent, "lost": sender.lost, "chunks": sender.seq, "ended": end.why}
    return Answer(f"{sender.sent} lines sent; {end.why}", data)


class _Sender:
    """Gathers lines into chunks and counts what became of them."""

    def __init__(self, transfer: UUID, tools: Tools) -> None:
        self._topic = topics.Chunk(tools.device, transfer)
        self._tools = tools
        self.sent = self.lost = self.seq = 0

    async def send_all(self, lines: asyncio.Queue[str | _End]) -> _End:
        """Send until the end comes; return it."""
        while True:
            batch, end = await _gather(lines)
            if end is None and self.sent + self.lost >= MOST_LINES:
                end = _End(f"{MOST_LINES} lines are the most one command sends")
            pieces = list(chunks(batch, limit=MAX_INLINE)) or [[]]
            for piece in pieces:
                if piece or end is not None:
                    await self._send(
                        LogChunk(seq=self.seq, lines=piece, last=end is not None and piece is pieces[-1])
                    )
            if end is not None:
                return end

    async def _send(self, chunk: LogChunk) -> None:
        try:
            await self._tools.link.publish(self._topic, to_wire(chunk))
        except LinkDown:
            self.lost += len(chunk.lines)
        else:
            self.sent += len(chunk.lines)
        self.seq += 1


async def _read(source: AsyncIterator[str], lines: asyncio.Queue[str | _End]) -> None:
    try:
        async for line in source:
            await lines.put(line)
    except FleetError as error:
        await lines.put(_End(str(error), error))
    else:
        await lines.put(_End("the container ended"))


async def _watch(enough: asyncio.Event, lines: asyncio.Queue[str | _End]) -> None:
    await enough.wait()
    await lines.put(_End("as was asked"))


async def _gather(lines: asyncio.Queue[str | _End]) -> tuple[list[str], _End | None]:
    """Wait for a line, then take what comes within `CHUNK_SECONDS`, `CHUNK_LINES` at most."""
    batch: list[str] = []
    item = await lines.get()
    try:
        async with asyncio.timeout(CHUNK_SECONDS):
            while not isinstance(item, _End):
                batch.append(cut(item))
                if len(batch) >= CHUNK_LINES:
                    return batch, None
                item = await lines.get()
    except TimeoutError:
        return batch, None
    return batch, item


def cut(line: str) -> str:
    """Return *line*, shortened if it is longer than any log line ought to be."""
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}... ({len(line)} characters)"


def newest(lines: Iterable[str], *, limit: int) -> list[str]:
    """Return the last of *lines*, as many as fit into *limit* bytes of JSON."""
    fitting: list[str] = []
    for line in map(cut, reversed(list(lines))):
        limit -= _size(line)
        if limit < 0:
            break
        fitting.append(line)
    return fitting[::-1]


def chunks(lines: Iterable[str], *, limit: int) -> Iterable[list[str]]:
    """Yield *lines* in pieces of at most *limit* bytes of JSON each; a single longer line goes alone."""
    piece: list[str] = []
    room = limit
    for line in lines:
        size = _size(line)
        if piece and size > room:
            yield piece
            piece, room = [], limit
        piece.append(line)
        room -= size
    if piece:
        yield piece


def _size(line: str) -> int:
    return len(json.dumps(line)) + 1
