"""A real Mosquitto for tests, configured by `broker_config` and certified by a real authority."""

import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto
from ipaddress import IPv4Address
from pathlib import Path
from uuid import UUID

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker_config.render import write
from broker_config.settings import BrokerSettings, Identity, Limits
from cloud.pki.authority import Authority, Credentials

HOST = "127.0.0.1"
_START_TIMEOUT = 10.0
_START_ATTEMPTS = 5
_STANDARD = Limits()


class Doors(Enum):
    """Which listeners a test broker has."""

    TLS = auto()
    TLS_AND_PLAIN = auto()


class BrokerDied(Exception):  # noqa: N818 - says what happened
    """Mosquitto ended, or never listened; carries its log."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Files that let a client in: its chain, its key and what it verifies the broker against."""

    name: str
    chain: Path
    key: Path
    root: Path

    def tls(self) -> ssl.SSLContext:
        """Return a fresh client context."""
        context = ssl.create_default_context(cafile=self.root)
        context.load_cert_chain(self.chain, self.key)
        return context

    def arguments(self) -> list[str]:
        """Return what mosquitto_pub and mosquitto_sub need on their command line."""
        return ["--cafile", str(self.root), "--cert", str(self.chain), "--key", str(self.key)]


class Mosquitto:
    """One broker whose ports, state and log stay the same over `kill`, `terminate` and `start`."""

    def __init__(self, settings: BrokerSettings, authority: Authority) -> None:
        self.settings = settings
        self.authority = authority
        self.log_file = settings.state.parent / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def devices_port(self) -> int:
        return self.settings.devices_port

    @property
    def services_port(self) -> int:
        return self.settings.services_port

    @property
    def topic_root(self) -> str:
        return self.settings.topic_root

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the broker and return when every listener accepts."""
        assert self._process is None, "the broker is running already"
        if not self.settings.certificate.exists():
            self.certify()
        configuration = write(self.settings)
        binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise BrokerDied("mosquitto is not installed; run deploy/setup.sh")
        said_before = len(self.log())
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "-c", str(configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._await_listening(said_before)

    def certify(self) -> None:
        """Give the broker a fresh key and certificate for loopback."""
        issued = self.authority.issue_server(
            names=["localhost"], addresses=[IPv4Address(HOST)], now=datetime.now(UTC)
        )
        issued.save(key=self.settings.key, chain=self.settings.certificate)

    def terminate(self) -> None:
        """End the broker as an init system would: it saves its state first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """End the broker in order and start it again."""
        self.terminate()
        self.start()

    def stop(self) -> None:
        """End the broker if it runs."""
        if self._process is not None:
            self.kill()

    def wipe(self) -> None:
        """Delete everything the stopped broker remembered."""
        assert self._process is None, "stop the broker before its state is deleted"
        shutil.rmtree(self.settings.state, ignore_errors=True)

    def log(self) -> str:
        """Return what the broker has said since it was first started."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def listening(self) -> set[tuple[str, int]]:
        """Return every address and port the running broker listens on."""
        try:
            sockets = psutil.Process(self.pid).net_connections(kind="tcp")
        except psutil.Error:
            return set()
        return {(each.laddr.ip, each.laddr.port) for each in sockets if each.status == psutil.CONN_LISTEN}

    def device(self, device_id: UUID) -> Pass:
        """Return a pass for a device, signed as an enrolling device's would be."""
        key = generate_private_key(SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(device_id))])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        chain = self.authority.sign_device(
            request.public_bytes(Encoding.PEM), device_id, now=datetime.now(UTC)
        )
        return self.admit(
            str(device_id),
            Credentials(
                key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), chain=chain
            ),
        )

    def service(self, name: str) -> Pass:
        """Return a pass for a service or an operator."""
        return self.admit(name, self.authority.issue_client(name, now=datetime.now(UTC)))

    def admit(self, name: str, credentials: Credentials) -> Pass:
        """Save *credentials* and return them as a pass."""
        folder = self.settings.state.parent / "passes"
        folder.mkdir(exist_ok=True)
        chain, key = folder / f"{name}.pem", folder / f"{name}.key"
        credentials.save(key=key, chain=chain)
        return Pass(name, chain, key, self.authority.root_file)

    def _await_listening(self, said_before: int) -> None:
        """Wait until this very process, not one that took a port before it, listens on every port."""
        wanted = {self.devices_port, self.services_port, self.settings.plain_port} - {None}
        deadline = time.monotonic() + _START_TIMEOUT
        while not wanted <= {port for _, port in self.listening()}:
            if self._process is not None and self._process.poll() is not None:
                self._process = None
                raise BrokerDied(self.log()[said_before:])
            if time.monotonic() > deadline:
                self.stop()
                raise BrokerDied(f"not listening after {_START_TIMEOUT} s\n{self.log()[said_before:]}")
            time.sleep(0.01)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None, "the broker is not running"
        self._process.send_signal(how)
        self._process.wait(timeout=10)
        self._process = None


@contextmanager
def mosquitto(
    directory: Path,
    authority: Authority,
    *,
    doors: Doors = Doors.TLS,
    others: tuple[Identity, ...] = (),
    limits: Limits = _STANDARD,
) -> Iterator[Mosquitto]:
    """Run a broker with its files in *directory*; it ends with the block, however that ends."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = BrokerSettings(
        certificate=directory / "broker.pem",
        key=directory / "broker.key",
        devices_anchor=authority.device_anchor,
        services_anchor=authority.service_anchor,
        state=directory / "state",
        acl=directory / "acl",
        system_user=pwd.getpwuid(os.geteuid()).pw_name,
        others=others,
        limits=limits,
    )
    broker = _on_free_ports(settings, authority, doors)
    try:
        yield broker
    finally:
        broker.stop()


def _on_free_ports(settings: BrokerSettings, authority: Authority, doors: Doors) -> Mosquitto:
    """Start a broker, again on other ports if somebody took one between the question and the start."""
    for attempt in range(1, _START_ATTEMPTS + 1):
        devices, services, plain = free_ports(3)
        ports = replace(
            settings,
            devices_port=devices,
            services_port=services,
            plain_port=plain if doors is Doors.TLS_AND_PLAIN else None,
        )
        broker = Mosquitto(ports, authority)
        try:
            broker.start()
        except BrokerDied as error:
            if "Address already in use" not in str(error) or attempt == _START_ATTEMPTS:
                raise
        else:
            return broker
    raise AssertionError("the last attempt returns or raises")


def free_ports(count: int) -> list[int]:
    """Return ports the kernel says are free on loopback; ask again if one was taken meanwhile."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
