"""The outermost layer of a request: an id, a log line, safe headers, and an envelope when we fail."""

from __future__ import annotations

import logging
import re
from time import perf_counter
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.api.envelope import failed
from schemas.errors import ErrorCode, problem

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Door:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever escapes is logged and answered with `internal`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(scope, send)
        try:
            await self._app(scope, receive, passage.send)
        except ClientDisconnect:
            passage.log("the client went away")
        except Exception:
            log.exception("%s %s [%s] failed", scope["method"], scope["path"], passage.request_id)
            if passage.status is not None:
                raise
            message = f"the fault is ours; the log has it under request id {passage.request_id}"
            await failed(problem(ErrorCode.INTERNAL, message))(scope, receive, passage.send)
        else:
            passage.log("")


class _Passage:
    """One request on its way through the door."""

    def __init__(self, scope: Scope, send: Send) -> None:
        asked = Headers(scope=scope).get("x-request-id", "")
        self.request_id = asked if _REQUEST_ID.fullmatch(asked) else uuid4().hex
        self.status: int | None = None
        self._scope = scope
        self._send = send
        self._began = perf_counter()

    async def send(self, message: Message) -> None:
        """Send on, with our headers on the answer's start."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers.setdefault("Cache-Control", "no-store")
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    def log(self, note: str) -> None:
        """Write the request's line: no query, no headers, so no secret."""
        took = (perf_counter() - self._began) * 1000
        words = (self._scope["method"], self._scope["path"], self.status, took, self.request_id, note)
        log.info("%s %r %s %.1f ms [%s] %s", *words)
