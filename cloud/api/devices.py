"""Devices: the list, one device's status, its labels and name."""

# ruff: noqa: D401 - a handler's docstring describes the operation, whose summary is the imperative

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, StringConstraints

from cloud.api.dependencies import (
    NO_QUERY,
    DeviceId,
    Parts,
    Scope,
    body,
    needs,
    query,
    read_id,
)
from cloud.api.device_views import (
    DevicePage,
    DeviceStatus,
    DeviceSummary,
    Link,
    status_of_device,
    summary_of_device,
)
from cloud.api.envelope import ALWAYS, ASKED, GUARDED, READ, Envelope, refusals
from cloud.api.openapi import takes
from cloud.services import Services
from cloud.store import devices
from schemas.base import Document, LabelKey, LabelValue
from schemas.errors import ErrorCode, refuse
from schemas.selector import parse_selector

router = APIRouter(prefix="/edge/devices", tags=["devices"])
MAX_LABELS = 50


class DeviceQuery(Document):
    """Which devices, and how many at once."""

    selector: Annotated[
        str, Field(max_length=1000, examples=["site=lab,model!=nano"], description="Label selector.")
    ] = ""
    online: Annotated[bool | None, Field(description="Only those last seen so.")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Devices on one page.")] = 100
    after: Annotated[
        str | None,
        Field(
            description="Where the page starts: `next` of the page before.",
            examples=["0b6f2f6e-7d0f-4d5a-9c39-0d6f3e3b9a11"],
            json_schema_extra={"format": "uuid"},
        ),
    ] = None


class DevicePatch(Document):
    """What people may change of a device; absent fields stay as they are."""

    name: Annotated[
        str | None,
        StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$"),
        Field(examples=["door sensor, hall 2"]),
    ] = None
    labels: Annotated[
        dict[LabelKey, LabelValue | None],
        Field(max_length=MAX_LABELS, description="Merged into those it has; null takes a label away."),
    ] = {}


@router.get(
    "",
    operation_id="list_devices",
    summary="List devices",
    dependencies=[needs(Scope.DEVICES_READ)],
    responses=refusals(*GUARDED, *ASKED, ErrorCode.SELECTOR_SYNTAX, ErrorCode.DEVICE_BAD_ID, *ALWAYS),
    openapi_extra=takes(query=DeviceQuery),
)
async def list_devices(
    asked: Annotated[DeviceQuery, query(DeviceQuery)], services: Parts
) -> Envelope[DevicePage]:
    """By label selector and presence, in the order of ids. Send `next` as `after` for the next page."""
    selector = parse_selector(asked.selector)
    after = None if asked.after is None else read_id(asked.after, ErrorCode.DEVICE_BAD_ID, "after")
    async with services.database.session() as session:
        page = await devices.listing(
            session, selector=selector, online=asked.online, after=after, limit=asked.limit
        )
    link = _link(services)
    found = [summary_of_device(row, link) for row in page.rows]
    return Envelope[DevicePage](data=DevicePage(devices=found, next=page.next))


@router.get(
    "/{device}/status",
    operation_id="get_device_status",
    summary="Show one device",
    dependencies=[needs(Scope.DEVICES_READ), NO_QUERY],
    responses=refusals(*GUARDED, *ASKED, ErrorCode.DEVICE_BAD_ID, ErrorCode.DEVICE_UNKNOWN, *ALWAYS),
)
async def get_device_status(device: DeviceId, services: Parts) -> Envelope[DeviceStatus]:
    """What was ordered, what the device itself says, and whether it is connected (null: not known)."""
    async with services.database.session() as session:
        row = await devices.require(session, device)
    return Envelope[DeviceStatus](data=status_of_device(row, _link(services)))


@router.patch(
    "/{device}",
    operation_id="change_device",
    summary="Change a device's name and labels",
    dependencies=[needs(Scope.DEVICES_WRITE), NO_QUERY],
    responses=refusals(*GUARDED, *READ, ErrorCode.DEVICE_BAD_ID, ErrorCode.DEVICE_UNKNOWN, *ALWAYS),
    openapi_extra=takes(
        body=DevicePatch,
        examples={"a new place": {"name": "door sensor", "labels": {"site": "hall-2", "spare": None}}},
    ),
)
async def change_device(
    device: DeviceId, patch: Annotated[DevicePatch, body(DevicePatch)], services: Parts
) -> Envelope[DeviceSummary]:
    """Labels are merged, as by JSON merge patch (RFC 7396). May be repeated."""
    async with services.database.session() as session:
        row = await devices.hold(session, device)
        merged = {**row.labels, **patch.labels}
        labels = {key: value for key, value in merged.items() if value is not None}
        if len(labels) > MAX_LABELS:
            message = f"labels: {len(labels)} labels; a device has at most {MAX_LABELS}"
            refuse(ErrorCode.VALUE_OUT_OF_RANGE, message, field="labels")
        row.labels = labels
        if patch.name is not None:
            row.name = patch.name
    return Envelope[DeviceSummary](data=summary_of_device(row, _link(services)))


def _link(services: Services) -> Link:
    uptime = services.broker_uptime()
    return Link(services.bus_connected(), None if uptime is None else services.now() - uptime)
