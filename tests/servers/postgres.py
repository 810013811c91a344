"""A real PostgreSQL for tests: its own cluster in a directory of its own, gone afterwards."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.servers.mosquitto import HOST, free_ports

_USER = "fleetline"
_START_TIMEOUT = 30.0


class PostgresDied(Exception):  # noqa: N818 - says what happened
    """PostgreSQL ended, or never accepted a connection; carries its log."""


class Postgres:
    """One server whose port and data stay the same over `kill` and `start`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (self.port,) = free_ports(1)
        self._data = directory / "data"
        self._log_file = directory / "postgres.log"
        self._binaries = _binaries()
        self._process: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        """Make the cluster's files; anyone on loopback may connect."""
        initdb = [str(self._binaries / "initdb"), "-D", str(self._data), "-U", _USER, "--auth=trust"]
        subprocess.run(
            [*initdb, "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"],
            check=True,
            capture_output=True,
            cwd=self.directory,
            **_owner(),
        )

    def start(self) -> None:
        """Start the server and return when it accepts connections."""
        assert self._process is None, "the server is running already"
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._data), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **_owner(),
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while self._client("pg_isready", "-q").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PostgresDied(self._log_file.read_text(errors="replace"))
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server and every session at once, as a crash of it would."""
        assert self._process is not None, "the server is not running"
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=10)
        self._process = None

    def stop(self) -> None:
        """End the server if it runs."""
        if self._process is not None:
            self.kill()

    def create_database(self) -> str:
        """Create a database that nobody else uses and return its SQLAlchemy URL."""
        name = f"test_{uuid4().hex}"
        done = self._client("createdb", name)
        if done.returncode != 0:
            raise PostgresDied(done.stderr.decode())
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://{_USER}@{HOST}:{self.port}/{database}"

    def _client(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(self._binaries / program), "-h", HOST, "-p", str(self.port), "-U", _USER, *arguments]
        return subprocess.run(command, capture_output=True, check=False)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server in a temporary directory that its own user can reach; both end with the block."""
    directory = Path(tempfile.mkdtemp(prefix="fleetline-postgres-"))
    server: Postgres | None = None
    try:
        if owner := _owner():
            shutil.chown(directory, user=owner["user"], group=owner["group"])
        server = Postgres(directory)
        server.initialise()
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _owner() -> dict[str, Any]:
    """Return whom the server runs as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _binaries() -> Path:
    found = [Path(path).resolve().parent for name in ("initdb",) if (path := shutil.which(name))]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in found:
        if (folder / "postgres").exists():
            return folder
    raise PostgresDied("PostgreSQL is not installed; run deploy/setup.sh")
