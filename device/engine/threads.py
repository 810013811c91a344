"""Blocking calls beside the event loop, in daemon threads.

An engine that hangs must not keep the agent from ending, and a pool of
ordinary threads would be waited for at exit.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_AHEAD = 1000
"""Items a source may be ahead of its reader."""


class Source(Protocol[T_co]):
    """What a stream reads; `close`, called from another thread, makes a blocked read end."""

    def __iter__(self) -> Iterator[T_co]:
        """Return the items."""

    def close(self) -> None:
        """Let go of what the items come from."""


async def in_thread(call: Callable[[], T]) -> T:
    """Return what *call* returns, or raise what it raises; when cancelled, its answer is dropped."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: _Item[T] | _Failed) -> None:
        if answer.done():
            return
        match result:
            case _Item(value):
                answer.set_result(value)
            case _Failed(error):
                answer.set_exception(error)

    def work() -> None:
        try:
            result: _Item[T] | _Failed = _Item(call())
        except BaseException as error:  # noqa: BLE001 - raised again where it was called
            result = _Failed(error)
        _post(loop, lambda: settle(result))

    threading.Thread(target=work, name="engine-call", daemon=True).start()
    return await answer


async def stream(open_source: Callable[[], Source[T]]) -> AsyncGenerator[T, None]:
    """Yield what the source yields, read in a thread of its own; closing this closes the source."""
    reading = _Reading(open_source, asyncio.get_running_loop())
    threading.Thread(target=reading.run, name="engine-stream", daemon=True).start()
    try:
        while True:
            match await reading.queue.get():
                case _Item(value):
                    reading.slots.release()
                    yield value
                case _Failed(error):
                    raise error
                case None:
                    return
    finally:
        reading.close()


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


class _Reading(Generic[T]):
    """One source, its thread and the queue between that thread and the loop."""

    def __init__(self, open_source: Callable[[], Source[T]], loop: asyncio.AbstractEventLoop) -> None:
        self.queue: asyncio.Queue[_Item[T] | _Failed | None] = asyncio.Queue()
        self.slots = threading.Semaphore(_AHEAD)
        self._open = open_source
        self._loop = loop
        self._source: Source[T] | None = None
        self._closed = threading.Event()

    def run(self) -> None:
        """Read until the source ends, fails or is closed."""
        last: _Failed | None = None
        try:
            self._source = self._open()
            if not self._closed.is_set():
                self._read(self._source)
        except BaseException as error:  # noqa: BLE001 - raised again where the stream is read
            last = _Failed(error)
        self._post(last)
        if self._source is not None:
            _close(self._source)

    def close(self) -> None:
        """Let the thread end soon."""
        self._closed.set()
        self.slots.release()
        if self._source is not None:
            _close(self._source)

    def _read(self, source: Source[T]) -> None:
        for value in source:
            self.slots.acquire()
            if self._closed.is_set():
                return
            self._post(_Item(value))

    def _post(self, item: _Item[T] | _Failed | None) -> None:
        _post(self._loop, lambda: self.queue.put_nowait(item))


def _close(source: Source[object]) -> None:
    # Its reader may let go of the socket at this very moment, or be inside the generator.
    with suppress(OSError, AttributeError, ValueError):
        source.close()


def _post(loop: asyncio.AbstractEventLoop, act: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(act)
