"""The HTTP server, run as one task among the cloud's others."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from cloud.feed import Feed

GRACE = 5
"""Seconds that requests under way get when the server stops."""


class ApiServer(uvicorn.Server):
    """Serves until `should_exit` is set; then streams and waits end by themselves, before the connections.

    Signals are left to whoever runs it.
    """

    def __init__(
        self, app: FastAPI, feed: Feed, *, cert: Path | None = None, key: Path | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=GRACE,
                ssl_certfile=cert,
                ssl_keyfile=key,
            )
        )
        self._feed = feed

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Install no signal handlers."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let every wait and stream end, then close."""
        self._feed.close()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket for `ApiServer.serve`; port 0 takes any free one.

    The protocol is named because asyncio turns Nagle's algorithm off only where it is: otherwise every answer
    on a kept connection would wait 40 ms for the client's delayed acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening
