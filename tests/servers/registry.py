"""A registry that has nothing: it answers as the distribution specification asks, 404 to every manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.servers.mosquitto import HOST

_UNKNOWN = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}).encode()


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/v2/"
        body = b"{}" if known else _UNKNOWN
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - as inherited
        return


@contextmanager
def empty_registry() -> Iterator[str]:
    """Run a registry on loopback, which Docker reaches without TLS; yield `host:port`."""
    server = ThreadingHTTPServer((HOST, 0), _Empty)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
