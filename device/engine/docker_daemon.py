"""The door to a Docker daemon, and the only importer of the Docker SDK: calls in threads, our errors."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from socket import AF_UNIX, socket
from typing import Any, Final, TypeAlias, TypeVar

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env

from device.engine.docker_faults import refusal, unreachable
from device.engine.threads import Source, in_thread, stream

T = TypeVar("T")

Api: TypeAlias = docker.APIClient
"""The SDK's client: one method for each request of the Docker Engine API."""

_USUAL_ADDRESS: Final = "unix:///var/run/docker.sock"
CALL_TIMEOUT: Final = 60
"""Seconds the daemon may take to answer; a stop may take its grace more."""


class Daemon:
    """One daemon, found as the `docker` command finds it, connected to at the first call."""

    def __init__(self, base_url: str | None = None, *, timeout: int = CALL_TIMEOUT) -> None:
        """Take an address such as `unix:///run/docker.sock`; None means `DOCKER_HOST` or the usual socket."""
        self.calls = 0
        """Requests made so far."""
        self.init = ""
        """Version of the host's init program for containers; empty where it has none, or before a call."""
        self._options: dict[str, Any] = {"base_url": base_url} if base_url else {**kwargs_from_env()}
        self._socket = _unix_socket(self._options)
        self._timeout = timeout
        self._connecting = threading.Lock()
        self._client: Api | None = None

    async def call(self, doing: str, request: Callable[[Api], T], *, element: str = "") -> T:
        """Return the answer to one request; *doing* and *element* say in errors what it was about.

        Raises `EngineUnreachable`, `EngineRefused`, `NoSuchContainer`, `ImageNotFound`.
        """
        self.calls += 1
        with _told(doing, element):
            return await in_thread(lambda: request(self._connected()))

    async def stream(self, doing: str, open_source: Callable[[Api], Source[T]]) -> AsyncGenerator[T, None]:
        """Yield what a streaming request yields; closing this ends the request. Raises as `call` does."""
        self.calls += 1
        with _told(doing, ""):
            async with aclosing(stream(lambda: open_source(self._connected()))) as items:
                async for item in items:
                    yield item

    async def close(self) -> None:
        """Let go of connections; a call that still waits for the daemon is left to its thread."""
        client, self._client = self._client, None
        if client is not None:
            await in_thread(client.close)

    def _connected(self) -> Api:
        self._knock()
        with self._connecting:
            if self._client is None:
                client = Api(version="auto", timeout=self._timeout, **self._options)
                parts = client.version().get("Components") or []
                versions = {part.get("Name"): str(part.get("Version", "")) for part in parts}
                self.init = versions.get("docker-init", "").replace("N/A", "")
                self._client = client
            return self._client

    def _knock(self) -> None:
        """Raise `OSError` where nothing listens; the SDK would leave a socket open at each such try."""
        if self._socket is not None:
            with socket(AF_UNIX) as knocking:
                knocking.settimeout(self._timeout)
                knocking.connect(self._socket)


def _unix_socket(options: dict[str, Any]) -> str | None:
    address = str(options.get("base_url") or _USUAL_ADDRESS)
    return f"/{address.removeprefix('unix://').lstrip('/')}" if address.startswith("unix://") else None


@contextmanager
def _told(doing: str, element: str) -> Iterator[None]:
    """Turn what the SDK raises into our errors."""
    try:
        yield
    except APIError as error:
        text = str(error.explanation or error)
        raise refusal(error.status_code or 0, text, doing=doing, element=element) from error
    except (
        DockerException,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
        ValueError,
    ) as error:
        raise unreachable(str(error), doing=doing) from error
