"""The command's side of REST: finds the server and the key, turns refusals into exits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx

from cloud.cli.exits import Exit, stop
from cloud.stack.layout import Layout

DEFAULT_DATA_DIR = Path(".fleetline")
_EXIT_BY_STATUS = {401: Exit.DENIED, 403: Exit.DENIED, 404: Exit.NOT_FOUND, 429: Exit.UNREACHABLE}
_SERVER_FAULT = 500


@dataclass(frozen=True, slots=True)
class Door:
    """Where the API is and the key to it."""

    url: str
    key: str


def find_door(url: str | None, key: str | None, data_dir: Path | None) -> Door:
    """Return the API named by options or environment, else the local stack's in *data_dir*."""
    if url and key and data_dir is None:
        return Door(url.rstrip("/"), key)
    directory = data_dir or Path(os.environ.get("FLEETLINE_STACK_DIR", DEFAULT_DATA_DIR))
    try:
        endpoints = Layout(directory).read_endpoints()
    except OSError as error:
        stop(Exit.DENIED, "stack.closed", f"{error}; it is its owner's, or give --url and --key")
    if endpoints is None:
        stop(
            Exit.UNREACHABLE,
            "api.unknown",
            f"no stack is up in {directory}; start one with: fleet up, or give --url and --key"
            " (or FLEETLINE_URL and FLEETLINE_API_KEY)",
        )
    return Door((url or endpoints.api_url).rstrip("/"), key or endpoints.api_key)


class Api:
    """REST calls that return the envelope's data, or end the command with a clear word."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._http = httpx.Client(
            base_url=door.url, headers={"Authorization": f"Bearer {door.key}"}, timeout=30, trust_env=False
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data at *path*; parameters that are None are left out."""
        return self._send("GET", path, parameters=parameters)

    def post(self, path: str, body: Mapping[str, Any], **parameters: Any) -> Any:
        """Send *body* to *path* and return the data of the answer."""
        return self._send("POST", path, body=body, parameters=parameters)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change what is at *path* and return it."""
        return self._send("PATCH", path, body=body)

    def delete(self, path: str) -> Any:
        """Remove what is at *path*."""
        return self._send("DELETE", path)

    def health(self) -> Any:
        """Return what the server says of its parts, healthy or not."""
        try:
            return self._http.get("/health").json()["data"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self._unreachable(error)

    def pages(self, path: str, items: str, *, most: int = 0, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield every item of a paged list, at most *most* unless that is 0."""
        after, count = None, 0
        while True:
            page = self.get(path, after=after, **parameters)
            for item in page[items]:
                yield item
                count += 1
                if most and count == most:
                    return
            after = page.get("next")
            if not after:
                return

    def events(
        self,
        after: int | None = None,
        *,
        on_open: Callable[[], object] | None = None,
        **parameters: Any,
    ) -> Iterator[dict[str, Any]]:
        """Yield the fleet's events after the one numbered *after* (None: from now on) until the server ends.

        *on_open* is called once the stream stands: what it causes is seen.
        """
        silence = httpx.Timeout(30, read=60)
        given = _given({**parameters, "after": after})
        try:
            with self._http.stream("GET", "/edge/events", params=given, timeout=silence) as answer:
                if answer.is_error:
                    answer.read()
                    self._refused(answer)
                if on_open:
                    on_open()
                yield from _read_events(answer.iter_lines())
        except httpx.HTTPError as error:
            self._unreachable(error)

    def device(self, word: str) -> dict[str, Any]:
        """Return the device with id or name *word*, or whose id begins with it."""
        found = [
            each
            for each in self.pages("/edge/devices", "devices", limit=500)
            if word in {each["id"], each["name"]} or each["id"].startswith(word.lower())
        ]
        exact = [each for each in found if word in {each["id"], each["name"]}] or found
        if not exact:
            stop(Exit.NOT_FOUND, "device.unknown", f"no device is called {word!r}; fleet devices lists them")
        if len(exact) > 1:
            ids = ", ".join(each["id"] for each in exact[:5])
            stop(
                Exit.USAGE,
                "device.ambiguous",
                f"{word!r} fits {len(exact)} devices: {ids}; give more of the id",
            )
        return exact[0]

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Any:
        wait = (parameters or {}).get("wait") or 0
        try:
            answer = self._http.request(
                method, path, json=body, params=_given(parameters or {}), timeout=30 + float(wait)
            )
        except httpx.HTTPError as error:
            self._unreachable(error)
        if answer.is_error:
            self._refused(answer)
        return answer.json()["data"]

    def _refused(self, answer: httpx.Response) -> NoReturn:
        status = _EXIT_BY_STATUS.get(answer.status_code, Exit.USAGE)
        if answer.status_code >= _SERVER_FAULT:
            status = Exit.UNREACHABLE
        try:
            body = answer.json()
            code, message = body["code"], body["message"]
        except (ValueError, KeyError):
            code, message = f"http.{answer.status_code}", answer.text[:300]
        stop(status, code, message)

    def _unreachable(self, error: Exception) -> NoReturn:
        why = str(error) or type(error).__name__
        stop(
            Exit.UNREACHABLE, "api.unreachable", f"{self.door.url} does not answer: {why}; try: fleet doctor"
        )


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in parameters.items()
        if value is not None
    }


def _read_events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the `data` of a text/event-stream's events (WHATWG HTML, server-sent events)."""
    for line in lines:
        field, _, value = line.partition(":")
        if field == "data":
            yield json.loads(value)
