"""Every error a caller can meet: a stable code, its meaning, its HTTP status.

Codes are grouped by what is wrong (`payload.*` cannot be read, `field.*` and
`value.*` do not fit, `device.*`, `command.*` ... name the thing refused). A code
is never renamed or reused; clients may match on it. Texts are for people and
may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, NoReturn

from pydantic import Field, StringConstraints

from schemas.base import Message

SHOWN_VALUE_LIMIT = 80


class FailureClass(StrEnum):
    """Where a failure comes from; retry rules hang on it."""

    NETWORK = "network"
    AUTH = "auth"
    REGISTRY = "registry"
    DISK = "disk"
    RESOURCE = "resource"
    CONFIG = "config"
    DEPENDENCY = "dependency"
    IMAGE = "image"
    HEALTH = "health"
    AGENT = "agent"
    POLICY = "policy"


class ErrorCode(StrEnum):
    """The stable codes; `MEANING` documents each."""

    PAYLOAD_EMPTY = "payload.empty"
    PAYLOAD_NOT_UTF8 = "payload.not_utf8"
    PAYLOAD_JSON_SYNTAX = "payload.json_syntax"
    PAYLOAD_TOO_DEEP = "payload.too_deep"
    PAYLOAD_TOO_LARGE = "payload.too_large"
    PAYLOAD_DUPLICATE_KEY = "payload.duplicate_key"
    VALUE_NOT_FINITE = "value.not_finite"
    VALUE_OUT_OF_RANGE = "value.out_of_range"
    VALUE_WRONG_TYPE = "value.wrong_type"
    VALUE_BAD_CHARACTER = "value.bad_character"
    FIELD_UNKNOWN = "field.unknown"
    FIELD_MISSING = "field.missing"
    SCHEMA_UNSUPPORTED_VERSION = "schema.unsupported_version"
    TOPIC_UNKNOWN = "topic.unknown"
    DEVICE_MISMATCH = "device.mismatch"
    DEVICE_BAD_ID = "device.bad_id"
    DEVICE_UNKNOWN = "device.unknown"
    COMMAND_UNKNOWN = "command.unknown"
    COMMAND_EXPIRED = "command.expired"
    COMMAND_FROM_FUTURE = "command.from_future"
    COMMAND_ID_CONFLICT = "command.id_conflict"
    COMMAND_REFUSED = "command.refused"
    COMMAND_BUSY = "command.busy"
    COMMAND_INTERRUPTED = "command.interrupted"
    SERVICE_UNKNOWN = "service.unknown"
    SERVICE_WAITING = "service.waiting"
    SERVICE_EXITED = "service.exited"
    MANIFEST_CYCLE = "manifest.cycle"
    MANIFEST_TOO_MANY_SERVICES = "manifest.too_many_services"
    MANIFEST_DUPLICATE_SERVICE = "manifest.duplicate_service"
    MANIFEST_UNKNOWN_DEPENDENCY = "manifest.unknown_dependency"
    MANIFEST_NO_HEALTH_CHECK = "manifest.no_health_check"
    MANIFEST_ROLLBACK = "manifest.rollback"
    RELEASE_UNKNOWN = "release.unknown"
    RELEASE_CHANGED = "release.changed"
    TARGET_EMPTY = "target.empty"
    SELECTOR_SYNTAX = "selector.syntax"
    DEPLOYMENT_UNKNOWN = "deployment.unknown"
    CONFIG_UNKNOWN_SERVICE = "config.unknown_service"
    IMAGE_NOT_FOUND = "image.not_found"
    IMAGE_WRONG_PLATFORM = "image.wrong_platform"
    PORT_INVALID = "port.invalid"
    PORT_IN_USE = "port.in_use"
    LIMIT_INVALID = "limit.invalid"
    POLICY_RESERVED_NAME = "policy.reserved_name"
    ENGINE_UNREACHABLE = "engine.unreachable"
    ENGINE_REFUSED = "engine.refused"
    HEALTH_FAILED = "health.failed"
    TELEMETRY_BAD_TIME = "telemetry.bad_time"
    TELEMETRY_SERIES_LIMIT = "telemetry.series_limit"
    METRICS_UNREACHABLE = "metrics.unreachable"
    METRICS_REFUSED = "metrics.refused"
    QUERY_TOO_WIDE = "query.too_wide"
    AUTH_MISSING = "auth.missing"
    AUTH_INVALID = "auth.invalid"
    AUTH_EXPIRED = "auth.expired"
    AUTH_SCOPE = "auth.scope"
    KEY_UNKNOWN = "key.unknown"
    CSR_INVALID = "csr.invalid"
    CSR_WEAK_KEY = "csr.weak_key"
    CSR_SUBJECT_MISMATCH = "csr.subject_mismatch"
    CSR_EXTENSION_NOT_ALLOWED = "csr.extension_not_allowed"
    CLAIM_UNKNOWN = "claim.unknown"
    CLAIM_USED = "claim.used"
    CLAIM_EXPIRED = "claim.expired"
    CLAIM_DEVICE_TAKEN = "claim.device_taken"
    CLAIM_TOO_MANY_ATTEMPTS = "claim.too_many_attempts"
    ROUTE_UNKNOWN = "route.unknown"
    METHOD_NOT_ALLOWED = "method.not_allowed"
    STORE_UNREACHABLE = "store.unreachable"
    BROKER_UNREACHABLE = "broker.unreachable"
    CLOUD_UNREACHABLE = "cloud.unreachable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code stands for, the HTTP status it gives, and whether trying again can help."""

    status: int
    text: str
    retry: bool = False


MEANING: dict[ErrorCode, Meaning] = {
    ErrorCode.PAYLOAD_EMPTY: Meaning(400, "A body or payload was expected and none came."),
    ErrorCode.PAYLOAD_NOT_UTF8: Meaning(400, "The bytes are not UTF-8 text."),
    ErrorCode.PAYLOAD_JSON_SYNTAX: Meaning(400, "The text is not JSON (RFC 8259)."),
    ErrorCode.PAYLOAD_TOO_DEEP: Meaning(400, "Arrays and objects are nested too deeply."),
    ErrorCode.PAYLOAD_TOO_LARGE: Meaning(413, "The body or payload is longer than allowed."),
    ErrorCode.PAYLOAD_DUPLICATE_KEY: Meaning(400, "An object names one key twice."),
    ErrorCode.VALUE_NOT_FINITE: Meaning(422, "NaN and Infinity are not JSON numbers."),
    ErrorCode.VALUE_OUT_OF_RANGE: Meaning(422, "The value is outside its limits."),
    ErrorCode.VALUE_WRONG_TYPE: Meaning(422, "The value has another type or form than the field."),
    ErrorCode.VALUE_BAD_CHARACTER: Meaning(422, "The text holds characters its field does not allow."),
    ErrorCode.FIELD_UNKNOWN: Meaning(422, "There is no such field."),
    ErrorCode.FIELD_MISSING: Meaning(422, "A required field is absent."),
    ErrorCode.SCHEMA_UNSUPPORTED_VERSION: Meaning(422, "The document's schema version is not known here."),
    ErrorCode.TOPIC_UNKNOWN: Meaning(404, "The topic is not one of the fleet's."),
    ErrorCode.DEVICE_MISMATCH: Meaning(403, "The document or certificate belongs to another device."),
    ErrorCode.DEVICE_BAD_ID: Meaning(422, "A device id is a UUID4."),
    ErrorCode.DEVICE_UNKNOWN: Meaning(404, "No device with this id is enrolled."),
    ErrorCode.COMMAND_UNKNOWN: Meaning(404, "There is no such command, or no command with this id."),
    ErrorCode.COMMAND_EXPIRED: Meaning(409, "The command's deadline has passed; it was not carried out."),
    ErrorCode.COMMAND_FROM_FUTURE: Meaning(409, "The command's issue time lies ahead of the device's clock."),
    ErrorCode.COMMAND_ID_CONFLICT: Meaning(409, "The id was used before for another command."),
    ErrorCode.COMMAND_REFUSED: Meaning(409, "The device declined the command; the text says why."),
    ErrorCode.COMMAND_BUSY: Meaning(429, "The device has too many commands in hand.", retry=True),
    ErrorCode.COMMAND_INTERRUPTED: Meaning(
        409, "The agent was restarted before the command was over.", retry=True
    ),
    ErrorCode.SERVICE_UNKNOWN: Meaning(404, "No such service runs on the device."),
    ErrorCode.SERVICE_WAITING: Meaning(409, "The service waits for another one.", retry=True),
    ErrorCode.SERVICE_EXITED: Meaning(409, "The service's container ended when it should run."),
    ErrorCode.MANIFEST_CYCLE: Meaning(422, "Services depend on each other in a circle."),
    ErrorCode.MANIFEST_TOO_MANY_SERVICES: Meaning(422, "The release has more services than allowed."),
    ErrorCode.MANIFEST_DUPLICATE_SERVICE: Meaning(422, "Two services of the release share a name."),
    ErrorCode.MANIFEST_UNKNOWN_DEPENDENCY: Meaning(422, "A service depends on one the release has not."),
    ErrorCode.MANIFEST_NO_HEALTH_CHECK: Meaning(
        422, "A service is waited for until healthy but has no health check."
    ),
    ErrorCode.MANIFEST_ROLLBACK: Meaning(409, "The generation is not newer than the one already accepted."),
    ErrorCode.RELEASE_UNKNOWN: Meaning(404, "No release with this id is stored."),
    ErrorCode.RELEASE_CHANGED: Meaning(409, "This release name and version exist with other content."),
    ErrorCode.TARGET_EMPTY: Meaning(422, "The target matches no device."),
    ErrorCode.SELECTOR_SYNTAX: Meaning(422, "The label selector cannot be read."),
    ErrorCode.DEPLOYMENT_UNKNOWN: Meaning(404, "No deployment with this id is stored."),
    ErrorCode.CONFIG_UNKNOWN_SERVICE: Meaning(422, "The configuration names a service the device has not."),
    ErrorCode.IMAGE_NOT_FOUND: Meaning(404, "Neither the device nor a registry has the image."),
    ErrorCode.IMAGE_WRONG_PLATFORM: Meaning(422, "The image is for another processor."),
    ErrorCode.PORT_INVALID: Meaning(422, "A port is a number from 1 to 65535."),
    ErrorCode.PORT_IN_USE: Meaning(409, "The host port is taken on the device.", retry=True),
    ErrorCode.LIMIT_INVALID: Meaning(422, "A resource limit is not possible."),
    ErrorCode.POLICY_RESERVED_NAME: Meaning(422, "The name is reserved for the agent."),
    ErrorCode.ENGINE_UNREACHABLE: Meaning(503, "The container engine does not answer.", retry=True),
    ErrorCode.ENGINE_REFUSED: Meaning(409, "The container engine refused the step."),
    ErrorCode.HEALTH_FAILED: Meaning(409, "A service did not become healthy in time."),
    ErrorCode.TELEMETRY_BAD_TIME: Meaning(422, "A sample's time is impossible."),
    ErrorCode.TELEMETRY_SERIES_LIMIT: Meaning(422, "The device measures too many different things."),
    ErrorCode.METRICS_UNREACHABLE: Meaning(503, "The metrics database does not answer.", retry=True),
    ErrorCode.METRICS_REFUSED: Meaning(502, "The metrics database refused the request."),
    ErrorCode.QUERY_TOO_WIDE: Meaning(422, "The query would return too many points."),
    ErrorCode.AUTH_MISSING: Meaning(401, "An API key is needed: `Authorization: Bearer <key>`."),
    ErrorCode.AUTH_INVALID: Meaning(401, "The API key is not known or was revoked."),
    ErrorCode.AUTH_EXPIRED: Meaning(401, "The API key has expired."),
    ErrorCode.AUTH_SCOPE: Meaning(403, "The API key lacks the scope for this."),
    ErrorCode.KEY_UNKNOWN: Meaning(404, "No API key with this id exists."),
    ErrorCode.CSR_INVALID: Meaning(422, "The certificate request cannot be read or its signature is wrong."),
    ErrorCode.CSR_WEAK_KEY: Meaning(422, "The certificate request's key is too weak."),
    ErrorCode.CSR_SUBJECT_MISMATCH: Meaning(422, "The certificate request names another subject."),
    ErrorCode.CSR_EXTENSION_NOT_ALLOWED: Meaning(422, "The certificate request asks for an extension."),
    ErrorCode.CLAIM_UNKNOWN: Meaning(401, "The enrolment token is not known."),
    ErrorCode.CLAIM_USED: Meaning(409, "The enrolment token was used before."),
    ErrorCode.CLAIM_EXPIRED: Meaning(401, "The enrolment token has expired."),
    ErrorCode.CLAIM_DEVICE_TAKEN: Meaning(409, "A device with this id is enrolled with another key."),
    ErrorCode.CLAIM_TOO_MANY_ATTEMPTS: Meaning(
        429, "Too many refused enrolments from this address; wait as Retry-After says.", retry=True
    ),
    ErrorCode.ROUTE_UNKNOWN: Meaning(404, "There is nothing at this path."),
    ErrorCode.METHOD_NOT_ALLOWED: Meaning(405, "The path does not take this method."),
    ErrorCode.STORE_UNREACHABLE: Meaning(503, "The database does not answer.", retry=True),
    ErrorCode.BROKER_UNREACHABLE: Meaning(503, "The message broker does not answer.", retry=True),
    ErrorCode.CLOUD_UNREACHABLE: Meaning(503, "The cloud's REST interface does not answer.", retry=True),
    ErrorCode.INTERNAL: Meaning(500, "The fault is ours; the log has the details.", retry=True),
}


class Problem(Message):
    """One error as it travels: in results, reports and REST answers."""

    code: Annotated[str, Field(max_length=80, examples=["field.unknown"])]
    message: Annotated[str, StringConstraints(max_length=2000)]
    field: Annotated[str | None, Field(max_length=300, description="Path of the offending field.")] = None
    failure_class: FailureClass | None = None
    phase: Annotated[str | None, Field(max_length=40)] = None
    element: Annotated[str | None, Field(max_length=500, description="Service, image or port.")] = None
    retryable: bool = False

    def __str__(self) -> str:
        """Return `code: message`, the form shown to people."""
        return f"{self.code}: {self.message}"


class FleetError(Exception):
    """A refusal or failure with its `problem`; raised wherever a caller must be told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem

    @property
    def code(self) -> str:
        """The stable code."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status this error is answered with."""
        return status_of(self.problem.code)


class Unreadable(FleetError):  # noqa: N818 - says what the bytes are
    """Bytes from outside are not the message they should be: dead-letter them; nothing of ours failed."""


def problem(code: ErrorCode, message: str, **details: Any) -> Problem:
    """Return a `Problem`; `retryable` defaults to what the code's meaning says."""
    details.setdefault("retryable", MEANING[code].retry)
    return Problem(code=code, message=message[:2000], **details)


def refuse(code: ErrorCode, message: str, **details: Any) -> NoReturn:
    """Raise `FleetError` with this code and message."""
    raise FleetError(problem(code, message, **details))


def status_of(code: str) -> int:
    """Return the HTTP status for *code*; 500 for one this version does not know."""
    try:
        return MEANING[ErrorCode(code)].status
    except ValueError:
        return 500


def shown(value: object) -> str:
    """Return *value* quoted, escaped and cut, fit for an error text or a log line."""
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE_LIMIT else f"{text[: SHOWN_VALUE_LIMIT - 3]}..."
