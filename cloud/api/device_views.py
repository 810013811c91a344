"""How a device is shown (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field

from cloud.store.devices import all_labels
from cloud.store.tables import DeviceRow
from schemas.base import Counter, Id, Message, UtcDatetime
from schemas.device import DeviceFacts
from schemas.errors import Problem
from schemas.presence import Presence
from schemas.reported import Outcome, Phase, Reported, ServiceReport

OnlineWord = Annotated[
    bool | None,
    Field(
        description="By its own word or its last will; null: not known, because the cloud's own broker link"
        " is down, or the device said nothing since the broker restarted, which forgets last wills."
    ),
]
_Settled = Annotated[
    bool | None,
    Field(
        description="Whether it runs what was ordered last, by its newest report (as old as `seen_at` if it"
        " is not online); null before its first report."
    ),
]


@dataclass(frozen=True, slots=True)
class Link:
    """What the cloud knows of its broker. *since*: when the broker started, None where it does not tell.

    A broker in operation notices within one and a half keepalives that a device is gone, so its word
    "online" stands however long the device is quiet. Wills do not outlive a broker: one that was down while
    a device died leaves "online" behind.
    """

    connected: bool
    since: datetime | None = None


class ServiceCount(Message):
    """How many services run as they should, of how many, by the device's newest report."""

    well: int
    all: int


class DeviceSummary(Message):
    """A device in a list."""

    id: Id
    name: str
    labels: Annotated[dict[str, str], Field(description="Given by people.")]
    online: OnlineWord
    seen_at: UtcDatetime | None
    model: str
    services: ServiceCount
    settled: _Settled


class DevicePage(Message):
    """Some devices; `next` goes into `after` to get the next ones, null: there are no more."""

    devices: list[DeviceSummary]
    next: Id | None


class Ordered(Message):
    """The newest that was ordered; 0: nothing yet."""

    generation: Counter
    config_version: Counter


class Told(Message):
    """What the device said last of its progress."""

    generation: Counter
    committed_generation: Counter
    config_version: Counter
    release_id: Id | None
    phase: Phase
    outcome: Outcome | None
    at: UtcDatetime


class DeviceStatus(Message):
    """What the cloud knows of one device. `reported` is the device's own word, null before its first."""

    id: Id
    name: str
    labels: Annotated[dict[str, str], Field(description="Given by people.")]
    selectable: Annotated[dict[str, str], Field(description="Every label a selector sees, facts included.")]
    online: OnlineWord
    presence: Presence | None
    seen_at: Annotated[
        UtcDatetime | None, Field(description="When anything came last, by the cloud's clock.")
    ]
    enrolled_at: UtcDatetime
    certificate_expires_at: UtcDatetime
    facts: DeviceFacts | None
    ordered: Ordered
    reported: Told | None
    settled: _Settled
    services: list[ServiceReport]
    problems: list[Problem]


def summary_of_device(row: DeviceRow, link: Link) -> DeviceSummary:
    """Return *row* as it is listed."""
    reported = _reported(row)
    services = reported.services if reported else []
    return DeviceSummary(
        id=row.id,
        name=row.name,
        labels=row.labels,
        online=_online(row, link),
        seen_at=row.seen_at,
        model=reported.facts.model if reported else "",
        services=ServiceCount(well=sum(each.well for each in services), all=len(services)),
        settled=_settled(row, reported),
    )


def status_of_device(row: DeviceRow, link: Link) -> DeviceStatus:
    """Return everything about *row*."""
    reported = _reported(row)
    return DeviceStatus(
        id=row.id,
        name=row.name,
        labels=row.labels,
        selectable=all_labels(row),
        online=_online(row, link),
        presence=Presence.model_validate(row.presence) if row.presence else None,
        seen_at=row.seen_at,
        enrolled_at=row.enrolled_at,
        certificate_expires_at=row.certificate_expires_at,
        facts=reported.facts if reported else None,
        ordered=Ordered(generation=row.generation, config_version=row.config_version),
        reported=Told.model_validate(reported.model_dump()) if reported else None,
        settled=_settled(row, reported),
        services=reported.services if reported else [],
        problems=reported.problems if reported else [],
    )


def _online(row: DeviceRow, link: Link) -> bool | None:
    if not link.connected:
        return None
    stale = link.since is not None and (row.seen_at is None or row.seen_at < link.since)
    return None if row.online and stale else row.online


def _reported(row: DeviceRow) -> Reported | None:
    return Reported.model_validate(row.reported) if row.reported else None


def _settled(row: DeviceRow, reported: Reported | None) -> bool | None:
    """Return whether the newest order is what runs, committed, by the device's own word."""
    if reported is None:
        return None
    runs = row.generation in {0, reported.committed_generation}
    return runs and reported.config_version >= row.config_version
