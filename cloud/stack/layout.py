"""A local stack's settings and where its files lie. One directory holds everything.

DIR/endpoints.json   how to reach the stack, written when it is ready
DIR/stack.json       the settings and ports it was started with
DIR/pki/             the authority (cloud/pki)
DIR/passes/          certificates of broker, cloud and operator
DIR/broker/ DIR/influx/ DIR/cloud/ DIR/devices/NN/   state of each process
DIR/logs/            one log for each process
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError

from schemas.base import Document

HOST = "127.0.0.1"

_Document = TypeVar("_Document", bound=Document)


class EngineKind(StrEnum):
    """What the stack's agents run containers on."""

    DOCKER = "docker"
    MEMORY = "memory"


class MetricsKind(StrEnum):
    """Where samples are kept."""

    SQL = "sql"
    INFLUX = "influx"


Port = Annotated[int, Field(ge=0, le=65535)]


class StackSettings(Document):
    """What `fleet up` was asked for. Port 0 stands for any free one."""

    devices: Annotated[int, Field(ge=0, le=500)] = 3
    engine: EngineKind = EngineKind.DOCKER
    metrics: MetricsKind = MetricsKind.SQL
    http_port: Port = 8080
    mqtt_port: Port = 8884
    device_mqtt_port: Port = 8883
    influx_port: Port = 0
    influx_rpc_port: Port = 0
    topic_root: str = "fleet/v1"
    database_url: str | None = None


class Endpoints(Document):
    """`endpoints.json`: all a program needs to talk to the stack. Paths are absolute."""

    api_url: str
    api_key: str
    mqtt_host: str
    mqtt_port: int
    ca_file: Path
    operator_cert: Path
    operator_key: Path
    topic_root: str
    metrics_url: str
    device_ids: list[str]
    pids: dict[str, int]
    device_mqtt_port: Annotated[int, Field(description="The listener that takes devices only.")]
    devices: Annotated[dict[str, Path], Field(description="Each local device's data directory by its id.")]


class Layout:
    """Paths below one stack directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    @property
    def endpoints(self) -> Path:
        """The file that says how to reach the stack."""
        return self.directory / "endpoints.json"

    @property
    def settings(self) -> Path:
        """The settings and ports of the last start."""
        return self.directory / "stack.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.directory / "stack.lock"

    @property
    def pki(self) -> Path:
        """The certificate authority."""
        return self.directory / "pki"

    @property
    def admin_key(self) -> Path:
        """The API key of the person who started the stack."""
        return self.directory / "passes" / "admin.key"

    @property
    def token(self) -> Path:
        """The enrolment token for the stack's own devices."""
        return self.directory / "passes" / "enrolment.token"

    @property
    def database_url(self) -> str:
        """The embedded default store."""
        return f"sqlite+aiosqlite:///{self.directory}/cloud/fleet.db"

    def certificate(self, name: str) -> tuple[Path, Path]:
        """Return the chain and the key of *name*: `broker`, `cloud` or `operator`."""
        folder = self.directory / "passes"
        return folder / f"{name}.pem", folder / f"{name}.key.pem"

    def log(self, name: str) -> Path:
        """Return the log of one process."""
        return self.directory / "logs" / f"{name}.log"

    def state(self, name: str) -> Path:
        """Return the state directory of one process."""
        return self.directory / name

    def device(self, number: int) -> Path:
        """Return the data directory of a local device, counted from 1."""
        return self.directory / "devices" / f"{number:02d}"

    def device_id(self, number: int) -> str | None:
        """Return the id a local device enrolled under, or None where it has not yet."""
        try:
            return str(json.loads(self._identity(number).read_bytes())["device"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def lead_device(self, number: int, changes: Mapping[str, str | int]) -> None:
        """Change what a local device remembers of its broker: ports and topics differ from start to start."""
        try:
            known = json.loads(self._identity(number).read_bytes())
        except (FileNotFoundError, ValueError):
            return
        if isinstance(known, dict) and known != {**known, **changes}:
            save_secret(self._identity(number), json.dumps({**known, **changes}))

    def _identity(self, number: int) -> Path:
        return self.device(number) / "identity" / "device.json"

    def devices(self) -> list[Path]:
        """Return the data directories of all local devices there ever were."""
        return sorted((self.directory / "devices").glob("[0-9]*"))

    def make(self) -> None:
        """Make the folders, closed to others."""
        for name in ("", "passes", "logs", "broker", "cloud", "devices"):
            (self.directory / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock.touch(mode=0o600)

    @property
    def used(self) -> bool:
        """Whether a stack was ever started here."""
        return self.lock.exists()

    @property
    def foreign(self) -> bool:
        """Whether the directory holds what is not a stack's, so that a stack must not settle in it."""
        return not self.used and self.directory.exists() and any(self.directory.iterdir())

    def remove(self) -> None:
        """Delete what a stack made here, and the directory itself where nothing else is in it."""
        for name in ("broker", "cloud", "devices", "influx", "logs", "passes", "pki"):
            if (self.directory / name).exists():
                shutil.rmtree(self.directory / name)
        for path in (self.endpoints, self.settings, self.lock):
            path.unlink(missing_ok=True)
            _draft(path).unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            self.directory.rmdir()

    def read_settings(self) -> StackSettings | None:
        """Return the settings of the last start, or None."""
        return _read(self.settings, StackSettings)

    def read_endpoints(self) -> Endpoints | None:
        """Return how to reach the stack, or None where it is not up."""
        return _read(self.endpoints, Endpoints)


def save(path: Path, document: Document) -> None:
    """Write *document* to *path* in one step, readable by the owner only."""
    save_secret(path, document.model_dump_json(indent=2))


def save_secret(path: Path, text: str) -> None:
    """Write *text* to *path* in one step, readable by the owner only at every moment."""
    draft = _draft(path)
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(f"{text}\n", "utf-8")
    draft.replace(path)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _read(path: Path, model: type[_Document]) -> _Document | None:
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
