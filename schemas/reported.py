"""What a device runs, in its own words: the only source of status anyone may believe."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from schemas.base import Counter, Id, Message, Name, Text, UtcDatetime
from schemas.device import DeviceFacts
from schemas.errors import Problem


class Phase(StrEnum):
    """How far the device is with its newest generation."""

    IDLE = "idle"
    STAGING = "staging"
    SWITCHING = "switching"
    SOAKING = "soaking"
    DONE = "done"


class Outcome(StrEnum):
    """How a generation ended on a device."""

    COMMITTED = "committed"
    NO_CHANGE = "no_change"
    FAILED_NO_STATE_CHANGE = "failed_no_state_change"
    ROLLED_BACK = "rolled_back"
    NOT_ROLLED_BACK = "not_rolled_back"
    UNABLE_TO_ROLL_BACK = "unable_to_roll_back"


class ServiceState(StrEnum):
    """What a service is doing."""

    WAITING = "waiting"
    """For another service's condition."""
    STARTING = "starting"
    RUNNING = "running"
    BACKING_OFF = "backing_off"
    """It ended and will be started again after a pause."""
    STOPPED = "stopped"
    """Held by a stop command."""
    COMPLETED = "completed"
    """Ended with 0 and is not to run again."""
    FAILED = "failed"
    """Ended otherwise and is not to run again, or could not be made."""


class Health(StrEnum):
    """What the health check says; `none` where the service has none."""

    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class PublishedPort(Message):
    """A port as it is really published on the device."""

    container: int
    host: int
    address: str
    protocol: str = "tcp"


class ServiceReport(Message):
    """One service as the device sees it."""

    name: Name
    state: ServiceState
    health: Health = Health.NONE
    image: Annotated[str, Field(max_length=500)] = ""
    image_id: Annotated[str, Field(max_length=100, description="Digest of what really runs.")] = ""
    container: Annotated[str, Field(max_length=100)] = ""
    restarts: Annotated[int, Field(ge=0)] = 0
    started_at: UtcDatetime | None = None
    exit_code: int | None = None
    ports: list[PublishedPort] = []
    error: Problem | None = None

    @property
    def well(self) -> bool:
        """Whether the service is as it should be: runs and is not unhealthy, or has completed."""
        runs = self.state is ServiceState.RUNNING and self.health in {Health.NONE, Health.HEALTHY}
        return runs or self.state is ServiceState.COMPLETED


class Reported(Message):
    """`up/reported`: the newest state, whole. A lower `revision` than one already seen is old news."""

    revision: Annotated[Counter, Field(description="Grows with every report this device makes.")]
    generation: Annotated[Counter, Field(description="Newest accepted; 0 before the first.")] = 0
    committed_generation: Annotated[Counter, Field(description="Last one that was committed.")] = 0
    release_id: Id | None = None
    phase: Phase = Phase.IDLE
    outcome: Outcome | None = None
    config_version: Counter = 0
    services: list[ServiceReport] = []
    problems: list[Problem] = []
    facts: DeviceFacts = DeviceFacts()
    at: UtcDatetime


class DeviceEvent(Message):
    """`up/event/{kind}`: something happened on a device."""

    at: UtcDatetime
    service: Name | None = None
    detail: Text = ""
    data: dict[str, Any] = {}


class EventKind(StrEnum):
    """The kinds of event an agent sends; a reader accepts others too."""

    GENERATION_ACCEPTED = "generation-accepted"
    GENERATION_ENDED = "generation-ended"
    CONFIG_APPLIED = "config-applied"
    SERVICE_STARTED = "service-started"
    SERVICE_DIED = "service-died"
    SERVICE_UNHEALTHY = "service-unhealthy"
    DRIFT_REPAIRED = "drift-repaired"
    REFUSED = "refused"
    """A message to the device could not be read; `data` holds topic and problem."""
