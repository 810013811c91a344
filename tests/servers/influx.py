"""A real InfluxDB 1.x for tests, configured as `fleet up` configures its own."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx

from cloud.stack.influx import influx_config
from tests.servers.mosquitto import HOST, free_ports

_START_TIMEOUT = 20.0


class InfluxDied(Exception):  # noqa: N818 - says what happened
    """InfluxDB ended, or never answered; carries its log."""


class Influx:
    """One server whose port and data stay the same over `kill` and `start`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.http_port, self._rpc_port = free_ports(2)
        self._log_file = directory / "influxd.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    def start(self) -> None:
        """Start the server and return when it answers."""
        assert self._process is None, "the server is running already"
        binary = shutil.which("influxd")
        if binary is None:
            raise InfluxDied("influxd is not installed; run deploy/setup.sh")
        configuration = self.directory / "influxd.conf"
        configuration.write_text(
            influx_config(self.directory, http_port=self.http_port, rpc_port=self._rpc_port)
        )
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, "run", "-config", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise InfluxDied(self._log_file.read_text(errors="replace"))
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server as a power cut would."""
        assert self._process is not None, "the server is not running"
        self._process.kill()
        self._process.wait(timeout=10)
        self._process = None

    def stop(self) -> None:
        """End the server if it runs."""
        if self._process is not None:
            self.kill()

    def create_database(self) -> str:
        """Create a database that nobody else uses and return its name."""
        name = f"test_{uuid4().hex}"
        httpx.post(f"{self.url}/query", data={"q": f'CREATE DATABASE "{name}"'}).raise_for_status()
        return name

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ping").is_success
        except httpx.TransportError:
            return False


@contextmanager
def influx(directory: Path) -> Iterator[Influx]:
    """Run a server with its files in *directory*; it ends with the block, however that ends."""
    directory.mkdir(parents=True, exist_ok=True)
    server = Influx(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
