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
    """Return a listening socket for `ApiServer.serve`; port 0 takes any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)
