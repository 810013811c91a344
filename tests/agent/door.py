"""The cloud's door for devices that enrol, as far as a device sees it: a real authority behind plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from uuid import UUID

from cryptography import x509

from schemas.base import jsonable
from schemas.device import EnrolmentAnswer, EnrolmentRequest
from schemas.reading import read
from tests.servers.mosquitto import HOST, Mosquitto

TOKEN = "flt_good_enough_for_a_test"


@dataclass
class Door:
    """What the door saw, and how it is to behave for a while."""

    broker: Mosquitto
    port: int = 0
    claims: list[EnrolmentRequest] = field(default_factory=list)
    lose_answers: int = 0
    """So many answers are lost after the certificate was issued."""
    busy: int = 0
    """So many claims get a 503 first."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/api/v1"

    def answer(self, claim: EnrolmentRequest) -> tuple[int, dict[str, object]]:
        self.claims.append(claim)
        if claim.token != TOKEN:
            return 401, {
                "status": "error", "data": None, "code": "claim.unknown", "message": "the token is not known",
            }  # fmt: skip
        if self.busy > 0:
            self.busy -= 1
            return 503, {"status": "error", "data": None, "code": "store.unreachable", "message": "later"}
        device = device_of(claim)
        authority = self.broker.authority
        answer = EnrolmentAnswer(
            device=device,
            certificate=authority.sign_device(claim.csr.encode(), device, now=datetime.now(UTC)).decode(),
            ca=authority.root_file.read_text(),
            mqtt_host=HOST,
            mqtt_port=self.broker.devices_port,
            topic_root=self.broker.topic_root,
        )
        return 201, {"status": "ok", "data": jsonable(answer), "message": ""}


def device_of(claim: EnrolmentRequest) -> UUID:
    """Return the id a claim is for."""
    subject = x509.load_pem_x509_csr(claim.csr.encode()).subject
    return UUID(str(subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value))


@contextmanager
def open_door(broker: Mosquitto, *, port: int = 0) -> Iterator[Door]:
    """Serve claims on *port* (0: a free one) while the block runs."""
    door = Door(broker)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path != "/api/v1/edge/enrolment/certificates":
                self.send_error(404)
                return
            status, content = door.answer(read(EnrolmentRequest, body))
            if status == 201 and door.lose_answers:
                door.lose_answers -= 1
                self.close_connection = True
                return
            payload = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has
            pass

    with ThreadingHTTPServer((HOST, port), Handler) as server:
        door.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield door
        finally:
            server.shutdown()
            thread.join()
