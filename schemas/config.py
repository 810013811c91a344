"""A device's configuration: how the agent works, and what its services get beside their manifest."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from schemas.base import Counter, Document, Name, UtcDatetime
from schemas.desired import MAX_SERVICES, Env, ServiceManifest


class LogLevel(StrEnum):
    """How much the agent writes to its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class AgentConfig(Document):
    """Settings of the agent that may change while it runs."""

    telemetry_interval: Annotated[float, Field(ge=1, le=3600, description="Seconds between readings.")] = 10
    reconcile_interval: Annotated[
        float, Field(ge=1, le=300, description="Seconds between looks at the engine when nothing happens.")
    ] = 5
    log_level: LogLevel = LogLevel.INFO


class ServiceConfig(Document):
    """What one service gets beside its manifest; `env` wins over the manifest's."""

    env: Env = {}


class Config(Document):
    """A device's whole configuration: `down/config`. Only a higher version is news."""

    version: Annotated[Counter, Field(ge=0)] = 0
    agent: AgentConfig = AgentConfig()
    services: Annotated[dict[Name, ServiceConfig], Field(max_length=MAX_SERVICES)] = {}
    issued_at: UtcDatetime | None = None


def with_config(service: ServiceManifest, config: Config) -> ServiceManifest:
    """Return *service* as it shall run under *config*."""
    extra = config.services.get(service.name)
    if extra is None or not extra.env:
        return service
    return service.model_copy(update={"env": {**service.env, **extra.env}})
