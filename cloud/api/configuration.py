"""Configuration of agents and services, by merge patch."""

# ruff: noqa: D401 - a handler's docstring describes the operation, whose summary is the imperative

from typing import Annotated, Any, Self

from fastapi import APIRouter
from pydantic import Field, model_validator

from cloud.api.dependencies import NO_QUERY, Caller, Parts, Scope, body, needs
from cloud.api.envelope import ALWAYS, GUARDED, READ, Envelope, refusals
from cloud.api.openapi import takes
from schemas.base import Counter, Document, Id, Message, Name
from schemas.config import AgentConfig
from schemas.desired import MAX_SERVICES, Target
from schemas.errors import ErrorCode
from schemas.reading import CodedValueError

router = APIRouter(prefix="/edge/config", tags=["configuration"])

_KNOWN = ", ".join(f"`{name}`" for name in AgentConfig.model_fields)


class ConfigUpdate(Document):
    """What changes in the configuration of the target devices; everything else stays."""

    target: Target
    agent: Annotated[
        dict[str, Any],
        Field(description=f"Merge patch of the agent's settings: {_KNOWN}. null: back to the default."),
    ] = {}
    services: Annotated[
        dict[Name, Any],
        Field(
            max_length=MAX_SERVICES,
            description="Merge patch of each service's configuration. null takes a service's away.",
        ),
    ] = {}

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.agent and not self.services:
            message = "nothing to change; give `agent`, `services` or both"
            raise CodedValueError(ErrorCode.FIELD_MISSING, message)
        return self


class Configured(Message):
    """The configuration's version that each device was ordered to have."""

    devices: dict[Id, Counter]


@router.post(
    "/update",
    operation_id="update_config",
    summary="Change the configuration of devices",
    status_code=202,
    dependencies=[NO_QUERY],
    responses=refusals(
        *GUARDED,
        *READ,
        ErrorCode.DEVICE_UNKNOWN,
        ErrorCode.TARGET_EMPTY,
        ErrorCode.SELECTOR_SYNTAX,
        ErrorCode.CONFIG_UNKNOWN_SERVICE,
        ErrorCode.POLICY_RESERVED_NAME,
        *ALWAYS,
    ),
    openapi_extra=takes(
        body=ConfigUpdate,
        examples={
            "a faster agent, a louder service": {
                "target": {"selector": "site=lab"},
                "agent": {"telemetry_interval": 5},
                "services": {"web": {"env": {"LOG_LEVEL": "debug"}}},
            }
        },
    ),
)
async def update_config(
    caller: Annotated[Caller, needs(Scope.CONFIG_WRITE)],
    order: Annotated[ConfigUpdate, body(ConfigUpdate)],
    services: Parts,
) -> Envelope[Configured]:
    """Merged into the newest configuration of each device (JSON merge patch, RFC 7396), all of them or none.

    Whether a device has it: `config_version` in its status.
    """
    versions = await services.deployer.update_config(
        order.target, agent=order.agent, services=order.services, by=caller.signature
    )
    return Envelope[Configured](
        data=Configured(devices=versions), message=f"ordered for {len(versions)} devices"
    )
