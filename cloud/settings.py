"""What the cloud is told when it starts, from `FLEETLINE_*` variables; `docs/cloud.md` lists them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from schemas.errors import ErrorCode, FleetError, problem, refuse
from schemas.topics import DEFAULT_ROOT, Topics

PREFIX = "FLEETLINE_"
_SQL_KEEPS = timedelta(days=30)
"""A disk is bounded, so SQL forgets samples unless told otherwise."""


def check_url(url: str) -> None:
    """Return if *url* is one of a web server. Raises FleetError, which tells no password."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        refuse(ErrorCode.VALUE_WRONG_TYPE, "use http://host:port or https://host:port")


class MetricsKind(StrEnum):
    """Where samples are kept."""

    SQL = "sql"
    INFLUX = "influx"


def _topic_root(root: str) -> str:
    return Topics(root).root


Port = Annotated[int, Field(ge=1, le=65535)]
TopicRoot = Annotated[str, AfterValidator(_topic_root)]


class Settings(BaseModel):
    """Everything that differs from one cloud to the next. `from_environment` reads it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Path("/var/lib/fleetline/cloud")
    pki_dir: Annotated[Path | None, Field(description="Default: `pki` in the data directory.")] = None
    database_url: Annotated[str, Field(description="Default: an SQLite file in the data directory.")] = ""

    metrics: MetricsKind = MetricsKind.SQL
    metrics_url: Annotated[str, Field(description="InfluxDB's base URL; for `sql` a database URL.")] = ""
    metrics_database: Annotated[str, Field(description="InfluxDB's database or bucket.")] = "fleet"
    metrics_org: Annotated[str, Field(description="InfluxDB 2.x only.")] = ""
    metrics_username: str = ""
    metrics_password: SecretStr = SecretStr("")
    metrics_token: SecretStr = SecretStr("")
    metrics_days: Annotated[
        int | None,
        Field(
            ge=1,
            le=36_500,
            description="How long samples are kept. Default: 30 in SQL, as it is in InfluxDB.",
        ),
    ] = None

    mqtt_host: str = "localhost"
    mqtt_port: Port = 8884
    mqtt_ca: Annotated[Path | None, Field(description="Without it the connection is not encrypted.")] = None
    mqtt_cert: Path | None = None
    mqtt_key: Path | None = None
    mqtt_client: Annotated[
        str, Field(description="The bus's client id; stable, and one for each process.")
    ] = "fleet-cloud-0"
    ingest_client: str = "fleet-ingest-0"
    topic_root: TopicRoot = DEFAULT_ROOT

    device_mqtt_host: Annotated[str, Field(description="What devices are told at enrolment.")] = "localhost"
    device_mqtt_port: Port = 8883

    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    http_cert: Path | None = None
    http_key: Path | None = None

    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        for name, cert, key in (
            ("mqtt", self.mqtt_cert, self.mqtt_key),
            ("http", self.http_cert, self.http_key),
        ):
            if (cert is None) != (key is None):
                raise ValueError(f"{name}_cert and {name}_key belong together; give both or neither")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the settings in *environment*; an empty variable counts as unset.

        Raises FleetError naming the first variable that does not fit.
        """
        given: dict[str, Any] = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX) and value
        }
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        try:
            return cls(**known)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = PREFIX + ".".join(map(str, first["loc"])).upper() if first["loc"] else "settings"
            raise FleetError(problem(ErrorCode.VALUE_WRONG_TYPE, f"{name}: {first['msg']}")) from None

    @property
    def pki(self) -> Path:
        """The authority's directory."""
        return self.pki_dir or self.data_dir / "pki"

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'fleet.db').absolute()}"

    @property
    def metrics_store(self) -> str:
        """The URL of the place where samples are kept."""
        if self.metrics_url:
            return self.metrics_url
        return self.database if self.metrics is MetricsKind.SQL else "http://127.0.0.1:8086"

    @property
    def metrics_retention(self) -> timedelta | None:
        """How long samples are kept; None leaves it to InfluxDB, which has a rule of its own."""
        if self.metrics_days is None:
            return _SQL_KEEPS if self.metrics is MetricsKind.SQL else None
        return timedelta(days=self.metrics_days)

    def check_http_tls(self) -> None:
        """Read what REST is served with. Raises OSError if that cannot be done."""
        if self.http_cert is not None:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(self.http_cert, self.http_key)

    def mqtt_tls(self) -> ssl.SSLContext | None:
        """Return what the broker is met with; None without a CA file."""
        if self.mqtt_ca is None:
            return None
        context = ssl.create_default_context(cafile=self.mqtt_ca)
        if self.mqtt_cert is not None:
            context.load_cert_chain(self.mqtt_cert, self.mqtt_key)
        return context
